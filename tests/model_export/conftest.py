"""The small patient and model of the pipeline tests."""

from tests.pipeline.conftest import drawn_images, picture_folder, tiny_weights  # noqa: F401
