"""Where in the brain a lesion is: side, lobes, and distances to eloquent areas, from an atlas in MNI152 space."""

from gliomark.location.atlas import check_atlas, is_atlas_installed
from gliomark.location.locate import locate_lesion
from gliomark.location.template_registration import TemplateRegistration, register_to_template

__all__ = [
    "TemplateRegistration",
    "check_atlas",
    "is_atlas_installed",
    "locate_lesion",
    "register_to_template",
]
