"""What is found, as one validated JSON file in a folder: how such a file is written as text and read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import DataError

__all__ = ["Record", "RecordFile"]

_LARGEST = 64 << 20


class Record(BaseModel):
    """A part of such a file: frozen, and a field that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RecordFile(Record):
    """A whole file.

    Attributes:
        file_name: Its name in the folder.
        kind: What it is, for messages.
        folder_of: What its folder is, for messages.
    """

    file_name: ClassVar[str]
    kind: ClassVar[str]
    folder_of: ClassVar[str]

    def to_json(self) -> str:
        """Return the record as JSON text.

        Raises:
            ValueError: A number is not finite, which JSON has no word for.
        """
        return json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read the record from its folder.

        Raises:
            DataError: It is missing, too large, or not a record of this schema.
        """
        path = Path(folder) / cls.file_name
        try:
            if path.stat().st_size > _LARGEST:
                raise DataError(f"{path} has {path.stat().st_size} bytes, more than {cls.kind} can have")
            record = cls.model_validate_json(path.read_bytes())
            record.to_json()
        except OSError as error:
            raise DataError(
                f"cannot read {path}: {error.strerror or error}; expected {cls.folder_of}"
            ) from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise DataError(f"{path} is not {cls.kind}: {where}: {first['msg']}") from None
        except (ValueError, RecursionError) as error:  # what can be read and not be written is not whole
            raise DataError(f"{path} is not {cls.kind}: {error}") from None
        return record
