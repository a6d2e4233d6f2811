"""The calls of MONAI Label's client (version 0.8.5), byte by byte as it sends them."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus

import httpx
import nibabel as nib
import numpy as np
from numpy.typing import NDArray

BOUNDARY = "----------lImIt_of_THE_fIle_eW_$"


def encode_form(fields: Mapping[str, str], files: Mapping[str, tuple[str, bytes]]) -> tuple[str, bytes]:
    """Return content type and body of a form; files: path on the client's computer and content, by field."""
    body = b""
    for name, text in fields.items():
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        body += head.encode() + text.encode() + b"\r\n"
    for name, (path, content) in files.items():
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{path}"\r\n'
        # the client guesses the type from the last extension: a .nii.gz file is "None or octet-stream" to it
        head += "Content-Type: application/octet-stream\r\n\r\n"
        body += head.encode() + content + b"\r\n"
    return f"multipart/form-data; boundary={BOUNDARY}", body + f"--{BOUNDARY}--\r\n\r\n".encode()


class MonaiCalls:
    """The client's methods on an HTTP client, each returning the response as it is."""

    def __init__(self, client: httpx.Client, token: str = "") -> None:
        self.client, self.headers = client, {"Authorization": f"bearer {token}"} if token else {}

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a call without a form."""
        return self.client.request(method, path, headers=self.headers, **options)

    def send_form(
        self, method: str, path: str, files: Mapping[str, tuple[str, bytes]], params: Mapping[str, Any]
    ) -> httpx.Response:
        """Send a form."""
        content_type, body = encode_form({"params": json.dumps({**params, "client_id": None})}, files)
        headers = self.headers | {"content-type": content_type, "content-length": str(len(body))}
        return self.client.request(method, path, content=body, headers=headers)

    def upload_image(self, path: str, content: bytes, image: str) -> httpx.Response:
        """Upload a volume."""
        return self.send_form("PUT", f"/datastore/?image={quote_plus(image)}", {"file": (path, content)}, {})

    def save_label(
        self, image: str, content: bytes, path: str = "/tmp/tmpab12.nii.gz", tag: str = ""
    ) -> httpx.Response:
        """Save a label."""
        url = f"/datastore/label?image={quote_plus(image)}" + (f"&tag={quote_plus(tag)}" if tag else "")
        params = {"label_info": [{"name": "lesion", "idx": 1}]}
        return self.send_form("PUT", url, {"label": (path, content)}, params)

    def infer(self, model: str, image: str, query: str = "", **params: Any) -> httpx.Response:
        """Run inference."""
        return self.send_form(
            "POST", f"/infer/{quote_plus(model)}?image={quote_plus(image)}{query}", {}, params
        )

    def next_sample(self, strategy: str) -> httpx.Response:
        """Choose the next study."""
        return self.send("POST", f"/activelearning/{strategy}", json={"client_id": None})

    def download_label(self, image: str, tag: str) -> httpx.Response:
        """Return a label."""
        return self.send("GET", f"/datastore/label?label={quote_plus(image)}&tag={quote_plus(tag)}")


def split_parts(response: httpx.Response) -> dict[str, tuple[str, bytes]]:
    """Return the parts of a multipart response: header lines and content, by name."""
    found = re.fullmatch(r"multipart/form-data; boundary=(\w+)", response.headers["content-type"])
    assert found, response.headers["content-type"]
    first, *parts, last = response.content.split(f"--{found[1]}".encode())
    assert first == b"" and last == b"--\r\n"
    split = [part.removeprefix(b"\r\n").removesuffix(b"\r\n").split(b"\r\n\r\n", 1) for part in parts]
    named = [(re.search(rb'name="(\w+)"', head), head, content) for head, content in split]
    return {name[1].decode(): (head.decode(), content) for name, head, content in named if name}


def read_nifti(content: bytes) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return values ``(column, row, slice)`` and affine of a compressed NIfTI file."""
    image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
    return np.asarray(image.dataobj), image.affine


def write_nifti(values: NDArray[Any], affine: NDArray[np.float64]) -> bytes:
    """Return the content of a compressed NIfTI file as 3D Slicer writes it: with both transforms."""
    image = nib.Nifti1Image(values, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    return gzip.compress(image.to_bytes(), mtime=0)
