"""A verification as JUnit XML: a test case for each witness, for servers that show such."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from .report import VerifyReport

__all__ = ["to_junit"]

# XML 1.0 has no way to write these.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(report: VerifyReport) -> bytes:
    """The report as a JUnit test suite, UTF-8: a witness that differs is a failure, one that could not run an error."""
    errors = sum(row.error is not None for row in report.rows)
    suite = ET.Element(
        "testsuite",
        name="ohmfold verify",
        tests=str(len(report.rows) + len(report.skipped)),
        failures=str(sum(not row.equal for row in report.rows) - errors),
        errors=str(errors),
        skipped=str(len(report.skipped)),
        time=f"{sum(row.seconds for row in report.rows):.3f}",
    )
    properties = ET.SubElement(suite, "properties")
    facts = {
        "file": report.file or "",
        "sha256": report.sha256,
        "machine": report.machine,
        "images": str(report.images),
        "yardstick": report.yardstick,
        **{f"version.{name}": version for name, version in report.versions.items()},
    }
    for name, value in facts.items():
        ET.SubElement(properties, "property", name=name, value=_xml(value))
    for row in report.rows:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=f"ohmfold.{row.group}",
            name=_xml(row.witness),
            time=f"{row.seconds:.3f}",
        )
        if not row.equal:
            kind = "failure" if row.error is None else "error"
            fault = ET.SubElement(case, kind, message=_xml(row.fault))
            fault.text = _xml(f"{row.differing} of {row.integers + row.floats} numbers differ; {row.fault}")
        out = ET.SubElement(case, "system-out")
        out.text = f"{row.images} images, {row.tensors} tensors, {row.integers} integers, {row.floats} floats"
    for skip in report.skipped:
        case = ET.SubElement(
            suite, "testcase", classname=f"ohmfold.{skip.group}", name=_xml(skip.witness), time="0"
        )
        ET.SubElement(case, "skipped", message=_xml(skip.reason))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    data: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return data + b"\n"


def _xml(text: str) -> str:
    return _NOT_XML.sub("?", text)
