"""``gliomark fetch``: a study from a PACS."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gliomark.cli.options import ask_password
from gliomark.errors import GliomarkError
from gliomark.messages import to_message_record


def fetch(
    pacs: Annotated[
        str, typer.Option(help="AET@host:port, or the address of a DICOMweb service: https://host/dicom-web.")
    ],
    out: Annotated[Path, typer.Option(help="New folder for the images.")],
    accession: Annotated[str, typer.Option(help="Accession number of the study.")] = "",
    patient_id: Annotated[str, typer.Option("--patient-id", help="Patient id.")] = "",
    study_uid: Annotated[
        str, typer.Option("--study-uid", help="StudyInstanceUID, if several studies fit.")
    ] = "",
    ae_title: Annotated[
        str, typer.Option("--ae-title", help="Own AE title, as registered in the PACS.")
    ] = "GLIOMARK",
    receive_port: Annotated[
        int | None,
        typer.Option(
            "--receive-port",
            min=1,
            max=65535,
            help="Port registered for --ae-title, for a PACS without C-GET: images are then sent by C-MOVE.",
        ),
    ] = None,
    user: Annotated[
        str,
        typer.Option(
            help="User of the DICOMweb service; the password is GLIOMARK_PACS_PASSWORD, or asked for."
        ),
    ] = "",
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the result, and an error too, as one line of JSON.")
    ] = False,
) -> None:
    """Fetch the MR images of a study from a PACS into a folder for `gliomark predict`.

    A DICOMweb service that requires a token gets the one in the environment variable GLIOMARK_PACS_TOKEN.
    """
    from gliomark.pacs import (
        Credentials,
        DimseOptions,
        SeveralStudiesError,
        StudyQuery,
        fetch_study,
        open_pacs,
    )

    password = ask_password(f"Password of {user}", variable="GLIOMARK_PACS_PASSWORD") if user else ""
    token = "" if user else os.environ.get("GLIOMARK_PACS_TOKEN", "")
    try:
        query = StudyQuery(accession, patient_id, study_uid)
        connection = open_pacs(pacs, DimseOptions(ae_title, receive_port), Credentials(user, password, token))
        fetched = fetch_study(connection, query, out)
    except GliomarkError as error:
        studies = error.studies if isinstance(error, SeveralStudiesError) else ()
        if json_output:
            record = {"error": to_message_record(error.message), "studies": [asdict(one) for one in studies]}
            typer.echo(json.dumps(record))
        elif studies:
            typer.echo("date\tdescription\taccession number\tpatient id\tstudy UID")
            for study in studies:
                columns = (study.date, study.description, study.accession_number, study.patient_id, study.uid)
                typer.echo("\t".join(columns))
        raise
    if json_output:
        counts = {"series": fetched.series_count, "files": fetched.file_count}
        typer.echo(json.dumps({"folder": str(out), **counts}))
        return
    files = "1 file" if fetched.file_count == 1 else f"{fetched.file_count} files"
    typer.echo(f"{out}: {files} in {fetched.series_count} series")
