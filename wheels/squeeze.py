"""Compresses the files of a wheel anew, by zopfli: deflate as every unzipper reads it, 4 % smaller than zlib's level 9.

    python wheels/squeeze.py WHEEL [LIMIT]

Prints what the largest files and all of them take, compressed and installed. Ends with status 1 if the wheel is larger
than LIMIT bytes.
"""

import os
import sys
import zipfile
import zlib

import zopfli.zlib


class Zopfli:
    """What zipfile asks of a compressor."""

    def __init__(self):
        self.parts = []

    def compress(self, part: bytes) -> bytes:
        self.parts.append(part)
        return b""

    def flush(self) -> bytes:
        content = b"".join(self.parts)
        best = [zopfli.zlib.compress(content, numiterations=5, blocksplittingmax=0), zlib.compress(content, 9)]
        return min(best, key=len)[2:-4]  # without zlib's frame


def squeeze(path: str) -> None:
    new = f"{path}.new"
    zipfile._get_compressor = lambda *_: Zopfli()  # zipfile has no public way to bring a compressor
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as target:
        for file in source.infolist():
            target.writestr(file, source.read(file))
    with zipfile.ZipFile(new) as written:
        damaged = written.testzip()
    if damaged is not None:
        sys.exit(f"{new}: {damaged} does not come back as it was")
    os.replace(new, path)


def report(path: str) -> None:
    files = zipfile.ZipFile(path).infolist()
    for file in sorted(files, key=lambda file: -file.compress_size)[:6]:
        print(f"{file.compress_size:>9,} of {file.file_size:>9,}  {file.filename}")
    packed, unpacked = sum(file.compress_size for file in files), sum(file.file_size for file in files)
    print(f"{packed:>9,} of {unpacked:>9,}  all {len(files)} files")


def main() -> None:
    path, limit = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None
    squeeze(path)
    report(path)
    size = os.path.getsize(path)
    print(f"{size:>9,}  {path}")
    if limit is not None and size > limit:
        sys.exit(f"{path}: {size:,} bytes, wanted at most {limit:,}")


if __name__ == "__main__":
    main()
