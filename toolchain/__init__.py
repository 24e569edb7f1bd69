"""Compile and judge: passes, program, emulator, twin, attacks, analyses, report, command line."""
