"""HTTP for the sources: JSON and text with retries, large files resumed, checked and cached."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nucleate import __version__
from nucleate.errors import SourceError

MAX_ANSWER_BYTES = 256 * 2**20
_RETRIED_STATUS = {408, 425, 429, 500, 502, 503, 504}
_CONNECTION_ERRORS = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)
_BLOCK = 2**20


@dataclass(frozen=True)
class RetryPolicy:
    """How stubbornly a service is asked.

    Attributes:
        attempts: how often a request is sent at most.
        first_wait: seconds before the second attempt; doubled for each further one, with up to 25 % of
            jitter.
        longest_wait: seconds waited at most, also where the service asks for more (Retry-After).
        timeout: seconds until an attempt is given up.
    """

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 120.0
    timeout: float = 60.0

    def wait(self, attempt: int, retry_after: str | None) -> float:
        """Seconds to wait after the attempt of this number (from 0)."""
        seconds = self.first_wait * 2**attempt * random.uniform(1.0, 1.25)
        if retry_after is not None and retry_after.strip().isdigit():
            seconds = max(seconds, float(retry_after))
        return min(seconds, self.longest_wait)


class _HttpOnlyRedirect(urllib.request.HTTPRedirectHandler):
    """Follows redirections between http and https addresses (urllib would also go to ftp)."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


DEFAULT_RETRY = RetryPolicy()


def check_url(url: str) -> str:
    """The address, if it is http or https: an answer that says "next page: file:///etc/passwd" is refused.

    Raises:
        SourceError: any other kind of address.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SourceError(f"{url[:200]!r} is not an http or https address")
    return url


def get(url: str, *, policy: RetryPolicy = DEFAULT_RETRY, headers: Mapping[str, str] | None = None) -> bytes:
    """What the service answers.

    Raises:
        SourceError: it refuses, or does not answer after all attempts; the message has status and address.
    """
    return _with_retries(url, policy, headers or {}, _read_all)


def get_json(
    url: str, *, policy: RetryPolicy = DEFAULT_RETRY, headers: Mapping[str, str] | None = None
) -> Any:
    """What the service answers, as JSON.

    Raises:
        SourceError: as ``get``, or the answer is no JSON.
    """
    answer = get(url, policy=policy, headers={"Accept": "application/json, */*;q=0.5", **(headers or {})})
    try:
        return json.loads(answer)
    except (ValueError, RecursionError) as error:
        start = answer[:80].decode("utf-8", errors="replace")
        raise SourceError(f"{url} answered no JSON but {start!r}") from error


def _with_retries(
    url: str, policy: RetryPolicy, headers: Mapping[str, str], use: Callable[[Any], Any]
) -> Any:
    opener = urllib.request.build_opener(_HttpOnlyRedirect())
    request = urllib.request.Request(
        check_url(url), headers={"User-Agent": f"nucleate/{__version__}", **headers}
    )
    problem = ""
    for attempt in range(policy.attempts):
        retry_after = None
        try:
            with opener.open(request, timeout=policy.timeout) as response:
                return use(response)
        except urllib.error.HTTPError as error:
            body = error.read(300).decode("utf-8", errors="replace")
            problem = f"HTTP status {error.code} ({' '.join(body.split())[:160] or error.reason})"
            retry_after = error.headers.get("Retry-After")
            if error.code not in _RETRIED_STATUS:
                raise SourceError(f"{url} refused: {problem}") from error
        except _CONNECTION_ERRORS as error:
            problem = str(getattr(error, "reason", error)) or type(error).__name__
        if attempt + 1 < policy.attempts:
            time.sleep(policy.wait(attempt, retry_after))
    raise SourceError(f"{url} did not answer in {policy.attempts} attempts: {problem}")


def _read_all(response: Any) -> bytes:
    answer = response.read(MAX_ANSWER_BYTES + 1)
    if len(answer) > MAX_ANSWER_BYTES:
        raise SourceError(f"{response.url} answered more than {MAX_ANSWER_BYTES // 2**20} MiB")
    return answer


@dataclass(frozen=True)
class Checksum:
    """What a complete file must have: MD5 in hexadecimal digits and size in bytes."""

    md5: str
    size: int


def figshare_checksum(
    article_id: int, file_id: int, *, policy: RetryPolicy = DEFAULT_RETRY
) -> Checksum | None:
    """MD5 and size that figshare lists for a file of an article, None where it does not list it.

    Files of earlier versions of an article are listed under their version, which is not searched; such a file
    is checked by its announced size and by the checksums inside the zip.
    """
    listing = get_json(
        f"https://api.figshare.com/v2/articles/{article_id}/files?page_size=1000", policy=policy
    )
    for entry in listing if isinstance(listing, list) else []:
        if entry.get("id") == file_id and entry.get("computed_md5"):
            return Checksum(entry["computed_md5"], int(entry["size"]))
    return None


def download(
    url: str,
    path: Path,
    *,
    checksum: Checksum | None = None,
    check: Callable[[Path], None] | None = None,
    policy: RetryPolicy = DEFAULT_RETRY,
) -> None:
    """Write what is at ``url`` to ``path``; the file appears there only when it is complete and checked.

    A transfer that breaks off goes on where it stopped if the server can do that.

    Args:
        url: http or https address.
        path: where the file goes; its folder is made.
        checksum: what it must have.
        check: raises if the file is not what it should be.
        policy: how stubbornly to ask.

    Raises:
        SourceError: the service does not answer, or the file is not the expected one (it is deleted then).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    for attempt in range(policy.attempts):
        have = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        if not (checksum is not None and have == checksum.size):
            try:
                complete = _with_retries(url, policy, headers, lambda response: _append(response, part))
            except SourceError as error:
                if have and "status 416" in str(error):  # nothing left to send: the part is whole, or foreign
                    complete = checksum is None
                    if not complete:
                        part.unlink()
                else:
                    raise
            if not complete:
                time.sleep(policy.wait(attempt, None))
                continue
        try:
            _verify(part, url, checksum)
            if check is not None:
                check(part)
        except SourceError:
            part.unlink()
            raise
        os.replace(part, path)
        return
    raise SourceError(
        f"The download of {url} broke off {policy.attempts} times; try again, it goes on where it stopped"
    )


def _append(response: Any, part: Path) -> bool:
    """Write a response behind what is there (status 206) or anew; False where it broke off."""
    expected = response.headers.get("Content-Length")
    written = 0
    with open(part, "ab" if response.status == 206 else "wb") as stream:
        try:
            while block := response.read(_BLOCK):
                stream.write(block)
                written += len(block)
        except (http.client.IncompleteRead, ConnectionError, TimeoutError):
            return False
    return expected is None or written == int(expected)


def _verify(part: Path, url: str, checksum: Checksum | None) -> None:
    if checksum is None:
        return
    size = part.stat().st_size
    if size != checksum.size:
        raise SourceError(f"{url} gave {size} bytes where {checksum.size} are listed; try again")
    digest = hashlib.md5(usedforsecurity=False)
    with open(part, "rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() != checksum.md5:
        raise SourceError(
            f"{url} gave a file with MD5 {digest.hexdigest()} where {checksum.md5} is listed; try again"
        )


def cache_folder() -> Path:
    """The user's cache folder: NUCLEATE_CACHE, else $XDG_CACHE_HOME/nucleate, else ~/.cache/nucleate."""
    if folder := os.environ.get("NUCLEATE_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nucleate"
