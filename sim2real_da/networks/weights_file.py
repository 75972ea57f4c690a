# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Networks as one checksummed safetensors file that says what is in it.

The manifest is JSON in the file's metadata: format, kind ('bundle': detector and pose network; 'classifier'; 'pose' or
'detector': one of the two alone), checksum, and what the kind needs. No pickle is read or written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

FORMAT = 'sim2real_da/1'
UNFINISHED = '.unfinished'
_UMASK = os.umask(0)  # asking means setting
os.umask(_UMASK)
LARGEST_HEADER = 4 * 1024 * 1024  # read as JSON takes some 25 times its size
LARGEST = 512 * 1024 * 1024  # bytes; a message that claims more is refused before anything is allocated


Network = TypeVar('Network', bound=nn.Module)


class WeightsError(ValueError):
    """Weights that cannot be used: damaged, or made for other objects or another architecture."""


def pack(tensors: dict[str, torch.Tensor], manifest: dict[str, Any]) -> bytes:
    """Return the file of these tensors (on the CPU); format and checksum are added to the manifest."""
    whole = manifest | {'format': FORMAT, 'checksum': checksum(tensors)}
    return save(tensors, metadata={'manifest': json.dumps(whole)})


def unpack(data: bytes | bytearray | memoryview, kind: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return manifest and tensors.

    :param kind: 'bundle', 'classifier', ...
    :raises WeightsError: for another kind, truncated or damaged data, a wrong checksum, numbers of an unknown type
    """
    manifest = read_manifest(data)
    if (found := kind_of(manifest)) != kind:
        found = found.encode('unicode_escape').decode()  # a file may say anything here, also what no log can carry
        raise WeightsError(f'weights: a {found}, expected a {kind}')
    try:
        tensors = load(bytes(data))
    except (SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f'weights: damaged or truncated ({error}); send or copy them again') from error
    if checksum(tensors) != manifest.get('checksum'):
        raise WeightsError('weights: the checksum does not match the content; send or copy them again')
    return manifest, tensors


def kind_of(manifest: dict[str, Any]) -> str:
    """Return what a manifest describes; the first files, all bundles, did not say."""
    return str(manifest.get('kind', 'bundle'))


def halved(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return floating-point tensors in 16 bits, for shipping."""
    return {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}


def save_network(path: Path | str, kind: str, network: nn.Module, manifest: dict[str, Any], half: bool = False) -> Path:
    """Write one network as a weights file, atomically.

    :param manifest: what else stands in it beside ``kind``
    :param half: store floating-point numbers in 16 bits, for shipping
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    write_atomically(path, pack(halved(tensors) if half else tensors, {'kind': kind, **manifest}))
    return path


def load_network(path: Path | str, kind: str,
                 build: Callable[[dict[str, Any]], Network], what: str = 'weights') -> tuple[Network, dict[str, Any]]:
    """Return a network of :func:`save_network` in evaluation mode, and its manifest.

    :param build: makes the network that a manifest describes
    :param what: how a message calls the file when it is missing
    :raises WeightsError: for a file that is missing, damaged, not finite or of another kind; the message names it
    """
    path = Path(path)
    data = read_weights(path, what)
    try:
        manifest, tensors = unpack(data, kind)
        network = build(manifest)
        network.load_state_dict(tensors)
        if not all(bool(torch.isfinite(t).all()) for t in tensors.values()):
            raise WeightsError('weights: some numbers are not finite; these weights are not used')
    except WeightsError as error:
        raise WeightsError(f'{path}: {error}') from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f'{path}: weights: the manifest does not fit the content ({error})') from error
    return network.eval(), manifest


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to a temporary file beside ``path``, flush it to the disk, rename it and flush its folder."""
    handle, name = tempfile.mkstemp(UNFINISHED, f'.{path.name}.', path.parent)
    try:
        with os.fdopen(handle, 'wb') as file:
            os.fchmod(handle, 0o666 & ~_UMASK)  # as any other file; mkstemp's are for its owner alone
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    # a power cut may lose a rename that is not flushed; the file is in place, so a folder that cannot be is no error
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_unfinished(folder: Path) -> None:
    """Remove what :func:`write_atomically` left in a folder when its process was killed; call it before writing."""
    for path in folder.glob(f'.*{UNFINISHED}'):
        path.unlink(missing_ok=True)


def read_manifest(data: bytes | bytearray | memoryview) -> dict[str, Any]:
    """Return the manifest alone, without reading a tensor.

    :raises WeightsError: when this is not a weights file of this package
    """
    view = memoryview(data)
    if len(view) < 8:
        raise WeightsError(f'weights: {len(view)} bytes are no safetensors file')
    length = int.from_bytes(view[:8], 'little')
    if len(view) > LARGEST or length > min(len(view) - 8, LARGEST_HEADER):
        raise WeightsError(f'weights: truncated or oversized ({len(view)} bytes, header of {length})')
    try:
        header = json.loads(bytes(view[8:8 + length]))
        manifest = json.loads(header['__metadata__']['manifest'])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError('weights: no sim2real_da manifest in the file; was it made by this package?') from error
    if not isinstance(manifest, dict) or manifest.get('format') != FORMAT:
        found = manifest.get('format') if isinstance(manifest, dict) else manifest
        raise WeightsError(f'weights: format {found!r}, expected {FORMAT!r}')
    return manifest


def read_weights(path: Path, what: str = 'weights') -> bytes:
    """Return the bytes of a weights file; what is too large to be one is not read.

    :param what: how a message calls the file when it is missing
    :raises WeightsError: for a file that is missing or too large; the message starts with its name
    """
    if not path.is_file():
        raise WeightsError(f'{path}: no such {what} file')
    if (size := path.stat().st_size) > LARGEST:
        raise WeightsError(f'{path}: {size} bytes, expected at most {LARGEST}')
    return path.read_bytes()


def manifest_of(path: Path) -> dict[str, Any]:
    """Return the manifest of a file.

    :raises WeightsError: when it is missing or not a weights file of this package; the message starts with its name
    """
    data = read_weights(path)
    try:
        return read_manifest(data)
    except WeightsError as error:
        raise WeightsError(f'{path}: {error}') from error


def checksum(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and content in the order of the names.

    :raises WeightsError: for a tensor of a type that numpy lacks, bfloat16 for instance
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
        try:
            digest.update(tensor.numpy().tobytes())
        except TypeError as error:
            raise WeightsError(f'weights: {name!r} is of {tensor.dtype}, which cannot be read; use float16 or '
                               f'float32') from error
    return digest.hexdigest()
