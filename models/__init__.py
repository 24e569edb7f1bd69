"""What is trained: architectures, data sets, training recipes, the mu-law map, and a small zoo.

Import the modules one by one: `datasets`, `download` and `recipe` need NumPy at most; `registry`,
`checkpoints`, `training`, `mu_law` and the architectures need torch.
"""
