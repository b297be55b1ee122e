"""Map the text of a licence to the licence identifiers of the Hugging Face Hub, which follow SPDX in lower case.

A text is mapped only if all of it is understood. A text with further conditions has the identifier `other`.
"""

from __future__ import annotations

import re

OTHER, UNKNOWN = "other", "unknown"
"""Identifiers of a licence that is not in the Hub's list, and of data without a stated licence."""

_FULL_NAMES = {
    "mit license": "mit",
    "apache license 2.0": "apache-2.0",
    "cc0": "cc0-1.0",
}
_SPDX = re.compile(
    r"mit|apache-2\.0|bsd-[23]-clause|unlicense|pddl|cc0-1\.0|odbl|odc-by"
    r"|cc-by-(?:2\.0|2\.5|3\.0|4\.0)|cc-by-sa-(?:3\.0|4\.0)|cc-by-nc-(?:2\.0|3\.0|4\.0)|cc-by-nd-4\.0"
    r"|cc-by-nc-sa-(?:2\.0|3\.0|4\.0)|cc-by-nc-nd-(?:3\.0|4\.0)"
)
_REMARKS = re.compile(r"(?P<name>[^(),;]+?)(?: \([^()]*\))?(?:, copyright [^;]*)?(?:; copied from [\w .-]+)?")
"""A name of a licence, and remarks that do not change its conditions: source and holder of the copyright."""


def hub_licence(text: str) -> str:
    """Return the Hub's identifier of a licence, e.g. `mit` for "MIT, copyright 2017 Zalando SE".

    Returns:
        `unknown` if the text states that there is no licence or that it is unknown, and `other` if it is not a licence
        in the Hub's list, or has conditions that the list does not express.
    """
    text = " ".join(text.split())
    if re.fullmatch(r"unknown|none stated(?: by [\w .-]+)?(?:; the publisher asks for the citation)?", text):
        return UNKNOWN
    match = _REMARKS.fullmatch(text)
    if match is None:
        return OTHER
    name = match["name"].lower()
    identifier = _FULL_NAMES.get(name, name.replace(" ", "-"))
    return identifier if _SPDX.fullmatch(identifier) else OTHER


def licence_name(text: str) -> str:
    """Return a valid `license_name` of the Hub for a licence that is not in its list."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "see-the-text"
