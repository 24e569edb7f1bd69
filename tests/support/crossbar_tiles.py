"""Tiles laid out cell by cell, the slow way, and profiles of small ones."""

from ohmfold.toolchain.hardware import Hardware


def tiled_hardware(rows=8, columns=8, mapping="differential", cell_bits=2, **parts):
    """A profile without flaws; `parts` are its other groups."""
    array = {"rows": rows, "columns": columns, "mapping": mapping, "cell_bits": cell_bits}
    return Hardware(name="drawn", source="made up for tests", array=array, **parts)


def cells_of_tiles(mapping, profile):
    """The tiles cell by cell: which (group, row, column) of the weights each one holds; laid out one by one.

    Every group begins a new block of tiles unless it fits beside (below and to the right of) those before it. A
    reference column's cells are column -1.
    """
    each, spare = mapping.physical
    rows, columns = profile.array.rows, profile.array.columns
    tiles, free = [], None
    for group in range(mapping.groups):
        fits = (
            free is not None
            and mapping.rows + free[0] <= rows
            and mapping.columns * each + free[1] + spare <= columns
        )
        if not fits:
            free = (0, 0)
            down, across = -(-mapping.rows // rows), -(-mapping.columns // mapping.tile_weights)
            block = [[{} for _ in range(across)] for _ in range(down)]
            tiles.extend(tile for line in block for tile in line)
        for row in range(mapping.rows):
            for column in range(mapping.columns):
                tile = block[row // rows][column // mapping.tile_weights]
                for cell in range(each):
                    place = (free[0] + row % rows, free[1] + column % mapping.tile_weights * each + cell)
                    assert place not in tile
                    assert place[0] < rows
                    assert place[1] < columns - spare
                    tile[place] = (group, row, column)
            for tile in block[row // rows]:
                tile.update(
                    {(free[0] + row % rows, columns - 1 - cell): (group, row, -1) for cell in range(spare)}
                )
        alone = len(block) > 1 or len(block[0]) > 1
        free = None if alone else (free[0] + mapping.rows, free[1] + mapping.columns * each)
    return tiles
