"""Whether two libraries do the same: a hash of the parts of an ELF file that run.

Names of files, build ids and notes differ from one build to the next; code and constants do not.
Device code lies in the section `.nv_fatbin` as ELF files of its own (uncompressed, see the CUDA
builder's flags). Layout of ELF-64: System V gABI, "Sections".
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from pathlib import Path

_MAGIC = b"\x7fELF\x02"
_HOST = (
    ".text", ".rodata", ".data", ".data.rel.ro", ".init_array", ".tdata",
    ".dynsym", ".dynstr", ".rela.dyn", ".rela.plt",
)  # fmt: skip
"""What the host runs, and which functions of other libraries it calls."""
_DEVICE = (".text", ".rodata", ".rel", ".nv.constant", ".nv.info", ".nv.shared", ".nv.global")
_FATBIN = ".nv_fatbin"
_EMPTY = 8  # SHT_NOBITS: a size and no bytes
_UNDEFINED = 0  # SHN_UNDEF
_RANDOM = re.compile(rb"(?<=_GLOBAL__N__)[0-9a-f]{8}|tmpxft_[0-9a-f]{8}_[0-9a-f]{8}")
"""What nvcc puts into names by chance: a module's number and a temporary file's."""


def digest(library: Path) -> str:
    """32 hex characters; '' for a file that is no ELF-64 file of this machine's byte order."""
    data = library.read_bytes()
    try:
        host = [part for part in _parts(data, 0) if part[0] in _HOST]
        images = [s for name, s in _parts(data, 0) if name == _FATBIN]
        device = [part for image in images for part in _inside(image)]
    except (struct.error, ValueError, IndexError, OverflowError):
        return ""
    if not host or (images and not device):
        return ""
    found = hashlib.sha256()
    for name, content in sorted((_plain(n.encode()), _plain(c)) for n, c in [*host, *device]):
        found.update(name + b"\0" + len(content).to_bytes(8, "little") + content)
    return found.hexdigest()[:32]


def imports(library: Path) -> set[str]:
    """Names that the dynamic linker looks up in other libraries. ValueError for no ELF-64 file.

    Entries of `.dynsym` without a section: System V gABI, "Symbol Table".
    """
    parts = dict(_parts(library.read_bytes(), 0))
    names, table = parts.get(".dynstr", b""), parts.get(".dynsym", b"")
    found = set()
    for name, _, _, section, _, _ in struct.iter_unpack("<IBBHQQ", table):
        if section == _UNDEFINED and name:
            found.add(names[name : names.index(b"\0", name)].decode(errors="replace"))
    return found


def _plain(text: bytes) -> bytes:
    return _RANDOM.sub(lambda match: b"0" * len(match[0]), text)


def _inside(image: bytes) -> Iterator[tuple[str, bytes]]:
    """The telling sections of every ELF file in a fat binary."""
    at = image.find(_MAGIC)
    while at >= 0:
        yield from (part for part in _parts(image, at) if part[0].startswith(_DEVICE))
        at = image.find(_MAGIC, at + len(_MAGIC))


def _parts(data: bytes, base: int) -> list[tuple[str, bytes]]:
    """(name, content) of each section of the ELF file that begins at `base`."""
    if data[base : base + len(_MAGIC)] != _MAGIC:
        raise ValueError("not an ELF-64 file")
    (table,) = struct.unpack_from("<Q", data, base + 40)
    size, count, names = struct.unpack_from("<HHH", data, base + 58)
    rows = [struct.unpack_from("<IIQQQQ", data, base + table + i * size) for i in range(count)]
    strings = base + rows[names][4]
    found = []
    for name, kind, _, _, offset, length in rows:
        start = strings + name
        text = data[start : data.index(b"\0", start)].decode(errors="replace")
        content = b"" if kind == _EMPTY else data[base + offset : base + offset + length]
        found.append((text, content or length.to_bytes(8, "little")))
    return found
