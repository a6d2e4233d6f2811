"""``gliomark models``: weights files and their signatures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliomark.cli.options import (
    LanguageChoice,
    ModelArgument,
    ModelExportFormat,
    TrustedKeyOption,
    ask_password,
)

app = typer.Typer(no_args_is_help=True, help="Show, export, sign and verify weights files.")


@app.command("list")
def list_models_command() -> None:
    """List the shipped models: name, markers, file."""
    from gliomark.model_loading import load_weights_by_name
    from gliomark.models.shipped_weights import SHIPPED_MODELS

    for name in SHIPPED_MODELS:
        weights = load_weights_by_name(name)
        typer.echo(f"{name}\t{', '.join(weights.card.markers)}\t{weights.path}")


@app.command("networks")
def list_networks_command() -> None:
    """List the networks that can be trained: name, kind, recipes, reference."""
    from gliomark.models.registry import describe_networks

    typer.echo(describe_networks())


@app.command("show")
def show_model_command(
    model: ModelArgument,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    trusted_key: TrustedKeyOption = None,
) -> None:
    """Load a weights file and show its model card, SHA-256 and signature."""
    from gliomark.model_loading import build_model, load_weights_by_name
    from gliomark.models.signatures import read_trust_policy
    from gliomark.models.weights_description import describe_as_json, describe_as_text

    weights = load_weights_by_name(model, read_trust_policy(trusted_key or ()))
    build_model(weights)
    typer.echo(describe_as_json(weights) if json else describe_as_text(weights))


@app.command("facts")
def write_model_facts_command(
    model: ModelArgument,
    out: Annotated[Path, typer.Argument(help="File to write: a page, or README.md for Hugging Face.")],
    language: Annotated[LanguageChoice, typer.Option(help="Language of the page.")] = LanguageChoice.en,
    hugging_face: Annotated[
        bool, typer.Option("--hugging-face", help="Write the card of a model repository at Hugging Face.")
    ] = False,
    trusted_key: TrustedKeyOption = None,
) -> None:
    """Write a model's facts on one page: what it does, how well, on whom it was measured, what to beware of."""
    from gliomark.files import atomic_write
    from gliomark.model_facts import render_facts_as_html, render_hugging_face_card
    from gliomark.model_loading import load_weights_by_name
    from gliomark.models.signatures import read_trust_policy

    weights = load_weights_by_name(model, read_trust_policy(trusted_key or ()))
    content = (
        render_hugging_face_card(weights) if hugging_face else render_facts_as_html(weights, language.value)
    )
    typer.echo(str(atomic_write(out, content)))


@app.command("export")
def export_model_command(
    model: ModelArgument,
    out: Annotated[Path, typer.Argument(help="New folder to create.")],
    to: Annotated[ModelExportFormat, typer.Option(help="Format of another program.")],
    trusted_key: TrustedKeyOption = None,
) -> None:
    """Export the networks of a weights file: TorchScript, ONNX, or the segmentation as a MONAI bundle."""
    from gliomark.model_export import export_model
    from gliomark.model_loading import load_weights_by_name
    from gliomark.models.signatures import read_trust_policy

    weights = load_weights_by_name(model, read_trust_policy(trusted_key or ()))
    typer.echo(str(export_model(weights, out, to.value)))


@app.command("learn-range")
def learn_range_command(
    model: ModelArgument,
    cohort: Annotated[Path, typer.Option(help="The prepared cohort on which the model was trained.")],
    out: Annotated[Path, typer.Option(help="The weights file to write; a signature does not apply to it.")],
) -> None:
    """Add to a weights file what its training patients look like, so that other images are refused."""
    from gliomark.cohort.store import Cohort
    from gliomark.model_loading import load_weights_by_name
    from gliomark.training.recipes import add_known_range

    add_known_range(load_weights_by_name(model), Cohort(cohort), out)
    typer.echo(str(out))


@app.command("keygen")
def create_signing_key_command(
    name: Annotated[
        Path, typer.Argument(help="Creates NAME.key and NAME.pub; existing files are not overwritten.")
    ],
    no_password: Annotated[
        bool, typer.Option("--no-password", help="Create the key without a password.")
    ] = False,
) -> None:
    """Create a key pair: the secret key signs weights files, the public key verifies them."""
    from gliomark.models.signatures import create_key_pair

    password = "" if no_password else ask_password("Password of the new key", confirm=True)
    secret_key_path, public_key_path, key = create_key_pair(name, password)
    typer.echo(f"{secret_key_path}\n{public_key_path}\nkey {key}")


@app.command("sign")
def sign_model_command(
    model: ModelArgument,
    key: Annotated[Path, typer.Option(help="Secret key file.")],
) -> None:
    """Load and sign a weights file; the signature is written beside it as FILE.minisig."""
    from gliomark.model_loading import build_model, load_weights_by_name
    from gliomark.models.signatures import TrustPolicy, read_verified_content, sign_weights

    weights = load_weights_by_name(model)
    build_model(weights)
    checked_file = read_verified_content(
        weights.path, TrustPolicy(pinned_hashes={str(weights.path): weights.file_sha256})
    )
    typer.echo(
        str(sign_weights(weights.path, checked_file, key, lambda: ask_password("Password of the key")))
    )


@app.command("verify")
def verify_model_command(
    model: ModelArgument,
    key: Annotated[list[Path], typer.Option(help="Public key file; repeatable.")],
) -> None:
    """Verify that a weights file is signed with one of these keys; exit status 1 if it is not."""
    from gliomark.models.shipped_weights import resolve_weights_file
    from gliomark.models.signatures import (
        TrustPolicy,
        read_trust_policy,
        read_verified_content,
        verify_signature,
    )

    trust = read_trust_policy(key, is_signature_required=True)
    with resolve_weights_file(model) as path:
        signature = verify_signature(path, read_verified_content(path, TrustPolicy()).data, trust)
    typer.echo(f"{path}: signed with key {signature.key_id} ({' '.join(signature.comment.split())})")
