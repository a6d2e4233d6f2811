"""The location of a lesion in prediction.json and in the reports, in both languages."""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema
import pypdfium2
import pytest

from gliomark.lesion_location import AreaDistance, LesionLocation, RegionShare
from gliomark.messages import message
from gliomark.reporting import render_pdf
from gliomark.reporting.html_report import render_contents_as_html
from gliomark.reporting.report_contents import create_report_contents

LOCATED = LesionLocation(
    left_share=0.99,
    regions=(RegionShare("frontal-lobe", "left", 0.81), RegionShare("corpus-callosum", None, 0.19)),
    distances=(AreaDistance("motor-cortex", "left", 12.4), AreaDistance("broca-area", "left", 0.0)),
    brain_overlap=0.95,
)
REFUSED = LesionLocation(message("location-not-registered"), brain_overlap=0.6)


@pytest.mark.parametrize("location", [LOCATED, REFUSED, None])
def test_the_document_follows_the_schema(make_prediction, location) -> None:
    schema = json.loads((files("gliomark.reporting") / "prediction.schema.json").read_text("utf-8"))
    document = json.loads(json.dumps(make_prediction(location=location).to_dict(), allow_nan=False))
    jsonschema.validate(document, schema)
    if location is LOCATED:
        assert document["location"]["side"] == "left"
        assert document["location"]["regions"][0]["name"] == "left frontal lobe"
        assert document["location"]["summary"] == "approximately: left frontal lobe (81 % of the volume)"


EXPECTED = {
    "en": (
        "left frontal lobe: 81 %",
        "left motor cortex: 12 mm",
        "left Broca's area: overlap",
        "not for navigation",
    ),
    "zh": ("左侧额叶：81 %", "左侧运动皮层：12 mm", "左侧Broca 区：重叠", "不得用于导航"),
}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_reports_state_the_location_or_why_there_is_none(make_prediction, language) -> None:
    refusal = {"en": "could not be matched to the atlas", "zh": "未能与图谱配准"}[language]
    heading = {"en": "Location of the lesion", "zh": "病灶位置"}[language]
    for location, expected in ((LOCATED, EXPECTED[language]), (REFUSED, (refusal,)), (None, ())):
        prediction = make_prediction(location=location)
        page = render_contents_as_html(
            create_report_contents(prediction, prediction.to_dict(), language), language
        )
        text = page.replace("&#39;", "'")
        pdf = pypdfium2.PdfDocument(render_pdf(prediction, language))
        printed = "".join(one.get_textpage().get_text_range() for one in pdf).replace("\r\n", "")
        for shown in (text, printed):
            assert (heading in shown) is (location is not None)
            for words in expected:
                assert words.replace(" ", "") in shown.replace(" ", "")
