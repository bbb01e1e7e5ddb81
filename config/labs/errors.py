"""What can go wrong with a lab, each with a sentence that says what to do."""

from __future__ import annotations

from typing import ClassVar

from config.errors import KezekError


class LabError(KezekError):
    """A lab cannot be built, started or asked."""

    code: ClassVar[str] = "lab.failed"


class MissingPackages(LabError):
    """Something has to be installed by a person who may."""

    code: ClassVar[str] = "lab.missing_packages"
