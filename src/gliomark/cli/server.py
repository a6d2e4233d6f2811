"""``gliomark serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gliomark.cli.options import (
    DatabaseOption,
    DataFolderOption,
    DeviceChoice,
    DeviceOption,
    LanguageChoice,
    RequireSignedOption,
    TrustedKeyOption,
    parse_pair,
)
from gliomark.errors import ConfigurationError
from gliomark.messages import message

BYTES_PER_GIB = 1 << 30


def create_limit_option(minimum: float, help_text: str) -> Any:
    """Create an option that limits the use of the server's resources."""
    return typer.Option(min=minimum, help=help_text)


def serve(
    data: DataFolderOption = Path("gliomark-data"),
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but a loopback address requires tokens and TLS.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="HTTP port; 0: any free port.")] = 8765,
    tls_certificate: Annotated[Path | None, typer.Option(help="TLS certificate, PEM file.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="TLS private key, PEM file.")] = None,
    database: DatabaseOption = "",
    workers: Annotated[int, typer.Option(min=1, help="Number of prediction processes.")] = 1,
    model: Annotated[
        list[str] | None,
        typer.Option(help="demo, synthetic or NAME=FILE; the first is the default; repeatable."),
    ] = None,
    dicom_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port of a DICOM node; studies sent to it are predicted."),
    ] = None,
    dicom_title: Annotated[str, typer.Option(help="AE title of the DICOM node.")] = "GLIOMARK",
    dicom_peer: Annotated[
        list[str] | None,
        typer.Option(help="AE title that may send images; needed unless --host is loopback; repeatable."),
    ] = None,
    dicom_quiet: Annotated[
        float,
        typer.Option(min=1, help="Seconds without a new image after which a study is considered complete."),
    ] = 10.0,
    send_to: Annotated[
        list[str] | None,
        typer.Option(help="Destination of DICOM results: AET@host:port or a DICOMweb address; repeatable."),
    ] = None,
    comprehensive_sr: Annotated[
        bool,
        typer.Option(
            "--comprehensive-sr",
            help="Send the structured report as Comprehensive SR; otherwise only where Comprehensive 3D SR is refused.",
        ),
    ] = False,
    rtstruct: Annotated[
        bool,
        typer.Option("--rtstruct", help="Also send the lesion's outline as structure set (RTSTRUCT)."),
    ] = False,
    storage_commitment: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Ask archives to commit to keep what was sent, and wait so many seconds for their report.",
        ),
    ] = None,
    language: Annotated[
        LanguageChoice, typer.Option(help="Language of the reports that are sent.")
    ] = LanguageChoice.en,
    with_input: Annotated[
        bool,
        typer.Option(
            "--with-input",
            help="Exit when standard input closes and print the address as JSON (for programs that start a server).",
        ),
    ] = False,
    connections: Annotated[int, create_limit_option(1, "Maximum number of open HTTP connections.")] = 400,
    connections_each: Annotated[int, create_limit_option(1, "The same from one address.")] = 300,
    uploads: Annotated[int, create_limit_option(1, "Maximum number of simultaneous uploads.")] = 6,
    uploads_each: Annotated[int, create_limit_option(1, "The same from one caller.")] = 4,
    upload_gb: Annotated[
        float, create_limit_option(0.001, "Maximum upload size in GiB, packed and unpacked.")
    ] = 2.0,
    associations: Annotated[
        int, create_limit_option(1, "Maximum number of simultaneous DICOM associations.")
    ] = 20,
    associations_each: Annotated[int, create_limit_option(1, "The same from one address.")] = 12,
    object_gb: Annotated[float, create_limit_option(0.001, "Maximum size of a DICOM object in GiB.")] = 1.0,
    reserve_gb: Annotated[
        float, create_limit_option(0, "Free disk space in GiB below which no images are accepted.")
    ] = 1.0,
    job_minutes: Annotated[
        float, create_limit_option(0.1, "Minutes without progress after which a job is ended.")
    ] = 15.0,
    study_memory: Annotated[
        float,
        create_limit_option(
            0,
            "Memory in MB of every process for the last studies, whose corrections are then predicted faster.",
        ),
    ] = 1000.0,
    device: DeviceOption = DeviceChoice.auto,
    require_signed: RequireSignedOption = False,
    trusted_key: TrustedKeyOption = None,
) -> None:
    """Run the prediction server (HTTP, optionally DICOM); every action is recorded."""
    from gliomark.models.signatures import read_trust_policy
    from gliomark.server.associations import AssociationLimits
    from gliomark.server.body_limits import RequestLimits
    from gliomark.server.connections import ConnectionLimits
    from gliomark.server.dicom_node import DicomNodeConfig
    from gliomark.server.run import ServerConfig, run_server
    from gliomark.server.security import ServerAddress

    name_and_file_texts = [one if "=" in one else f"{one}={one}" for one in model or ["demo"]]
    models = dict(parse_pair(one, "demo, synthetic or NAME=FILE") for one in name_and_file_texts)
    address = ServerAddress(host, port, tls_certificate, tls_key)
    peers, destinations, dicom_node = tuple(dicom_peer or ()), tuple(send_to or ()), None
    _check_node_options(dicom_port, destinations, peers, storage_commitment, rtstruct, comprehensive_sr)
    if dicom_port is not None:
        association_limits = AssociationLimits(
            associations,
            associations_each,
            max_object_bytes=int(object_gb * BYTES_PER_GIB),
            min_free_disk_bytes=int(reserve_gb * BYTES_PER_GIB),
        )
        dicom_node = DicomNodeConfig(
            dicom_port,
            host,
            dicom_title,
            peers,
            destinations,
            dicom_quiet,
            language=language.value,
            association_limits=association_limits,
            sends_comprehensive_sr=comprehensive_sr,
            sends_rtstruct=rtstruct,
            commitment_wait_s=storage_commitment,
        )
    upload_limits = RequestLimits(
        int(upload_gb * BYTES_PER_GIB),
        max_uploads=uploads,
        max_uploads_per_caller=uploads_each,
        min_free_disk_bytes=int(reserve_gb * BYTES_PER_GIB),
    )
    settings = ServerConfig(
        data,
        address,
        database,
        workers,
        models,
        request_limits=upload_limits,
        connection_limits=ConnectionLimits(connections, connections_each),
        dicom_node_config=dicom_node,
        stops_with_stdin=with_input,
        job_stall_timeout_s=60 * job_minutes,
        trust=read_trust_policy(trusted_key or (), require_signed),
        device=device.value,
        study_memory_mb=study_memory,
    )
    run_server(settings, notify=typer.echo)


def _check_node_options(
    dicom_port: int | None,
    destinations: tuple[str, ...],
    peers: tuple[str, ...],
    storage_commitment: float | None,
    rtstruct: bool,
    comprehensive_sr: bool,
) -> None:
    """Refuse options that would have no effect: those of a DICOM node that is not started, or without an archive."""
    values = {
        "--send-to": destinations,
        "--dicom-peer": peers,
        "--storage-commitment": storage_commitment,
        "--rtstruct": rtstruct,
        "--comprehensive-sr": comprehensive_sr,
    }
    for option, value in values.items():
        if value and dicom_port is None:
            raise ConfigurationError(message("node-options-without-port", option=option))
    if storage_commitment and all("://" in one for one in destinations):
        raise ConfigurationError(message("commitment-nowhere"))
