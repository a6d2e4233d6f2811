"""The fixtures of the pipeline tests: a small patient, a small model and ``run_command``."""

from tests.pipeline.conftest import (  # noqa: F401
    clinical_table,
    copied_pictures,
    copied_volumes,
    drawn_images,
    lesion_free_weights,
    picture_folder,
    reader_pool,
    run_command,
    tiny_weights,
    volume_folder,
    working_folder,
    write_clinical_table,
)
