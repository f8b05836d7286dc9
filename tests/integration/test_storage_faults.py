"""What a snapshot and a download make of storage that fails: real servers, behind a proxy that does harm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from signal import SIGKILL

import pytest
from trainer import directory, hashing, listing, s3, snapshot
from trainer.cache import Cache, Fetched
from trainer.catalogue import Catalogue
from trainer.errors import ConfigError, DataError, UnavailableError

from tests.integration.dataset_lab import PROJECT, Lab, content_key, md5
from tests.integration.s3_proxy import Call, Harm, Matches, S3Proxy, s3_proxy
from tests.integration.s3_servers import S3Server, juicefs

PICTURES = {f"cat/{n}.png": f"picture {n}".encode() for n in range(4)}
NAMES = [
    *("a b", " before", "after ", "+", "%41", "%2F", "?x=1", "#", "&", "~", "it's", '"', ";", "=", "@", ":", ",", "*"),
    *(
        "<>",
        "|",
        "^",
        "`",
        "{[()]}",
        "$",
        "!",
        ".hidden",
        "..two",
        "cafe\u0301",
        "na\u00efve",
        "😀",
        "\u200b",
        "\u202e",
    ),
    *("\u2028", "\u00a0", "n" * 255),
]
SLOW_DOWN = Harm(status=503, code="SlowDown")
EVERY_TIME = 10_000


@pytest.fixture
def lab(s3_server: S3Server) -> Lab:
    """A project's buckets with PICTURES, and one more that was uploaded in parts."""
    return filled(Lab.on(s3_server))


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[S3Proxy]:
    """A proxy in front of the server of `lab`."""
    with s3_proxy(s3_server) as proxy:
        yield proxy


def filled(lab: Lab) -> Lab:
    for key, body in PICTURES.items():
        lab.put(key, body)
    lab.put_in_parts("dog/parts.png", b"in parts")
    return lab


def lists(bucket: str) -> Matches:
    return lambda call: call.lists and call.bucket == bucket


def second_pages(bucket: str) -> Matches:
    return lambda call: lists(bucket)(call) and "continuation-token" in call.query


def copies(lab: Lab) -> Matches:
    return lambda call: call.method == "PUT" and call.bucket == lab.dvc and not call.key.endswith(".dir")


def reads(bucket: str) -> Matches:
    return lambda call: call.method == "GET" and call.bucket == bucket and bool(call.key)


def record_of(lab: Lab) -> Matches:
    return lambda call: call.writes and call.bucket == lab.airlock and call.key.startswith(f"snapshots/{PROJECT}/2")


def once_each(matches: Matches) -> Matches:
    """The first attempt of each request, however many are in flight."""
    met = set()

    def first(call: Call) -> bool:
        request = (call.method, call.bucket, call.key, *call.query.items())
        new = matches(call) and request not in met
        met.add(request)
        return new

    return first


def catalogue_of(lab: Lab) -> Catalogue:
    return Catalogue(lab.access, PROJECT, lab.airlock, lab.dvc)


def assert_nothing_recorded(lab: Lab) -> None:
    assert catalogue_of(lab).ids() == []
    assert_the_remote_is_sound(lab)


def assert_the_remote_is_sound(lab: Lab) -> None:
    held = {key: lab.read(lab.dvc, key) for key in lab.keys(lab.dvc)}
    for key, content in held.items():
        if key.endswith(".dir"):
            assert key == content_key(directory.name_of(content))
            # DVC takes for granted that they are there.
            assert {content_key(entry.md5) for entry in directory.decode(content)} <= held.keys()
        else:
            assert key == content_key(md5(content))


def assert_whole(lab: Lab, snapshot_id: str | None) -> dict[str, bytes]:
    """A record with all that belongs to it; the files that it checks out."""
    assert snapshot_id
    catalogue = catalogue_of(lab)
    record = catalogue.record(snapshot_id)
    pointer = lab.read(lab.airlock, f"snapshots/{PROJECT}/{snapshot_id}.dvc").decode()
    assert record.md5 in pointer
    files = {entry.relpath: lab.read(lab.dvc, content_key(entry.md5)) for entry in catalogue.entries(record.md5)}
    assert {md5(body): len(body) for body in files.values()} == catalogue.sizes(snapshot_id)
    assert (record.count, record.bytes) == (len(files), sum(map(len, files.values())))
    assert_the_remote_is_sound(lab)
    return files


# Rights and settings


@pytest.mark.parametrize(
    ("identity", "unreadable"),
    [
        ("no-train-bucket", "train"),
        ("train-bucket-to-list-only", "train"),
        ("dvc-bucket-to-read-only", "dvc"),
    ],
)
def test_a_bucket_that_the_key_has_no_right_to_is_named(lab: Lab, identity: str, unreadable: str) -> None:
    with pytest.raises(ConfigError, match=r"the key has no right to it. Check the bucket and the keys") as refused:
        lab.through(lab.server.known_as(identity)).take()
    assert getattr(lab, unreadable) in str(refused.value)
    assert_nothing_recorded(lab)
    assert len(assert_whole(lab, lab.take().snapshot_id)) == 5


def test_an_empty_object_that_may_not_be_looked_at_is_told_as_a_matter_of_rights(lab: Lab) -> None:
    lab.put("cat/empty.png", b"")
    with pytest.raises(ConfigError, match="the key has no right to it"):
        lab.through(lab.server.known_as("train-bucket-to-list-only")).take()
    assert_nothing_recorded(lab)


@pytest.mark.parametrize("bucket", ["train", "airlock", "dvc"])
def test_a_missing_bucket_is_named(lab: Lab, bucket: str) -> None:
    names = {**lab.environment(), f"{bucket}_bucket": "no-such-bucket"}
    with pytest.raises(ConfigError, match=r"no-such-bucket.*there is no such bucket"):
        snapshot.take(lab.access, **names, expected_digest="", triggered_by="a test")
    assert_nothing_recorded(lab)


def test_a_wrong_secret_is_told_before_anything_is_written(lab: Lab) -> None:
    wrong = replace(lab.server, secret_access_key="not-the-secret-key")
    with pytest.raises(ConfigError, match=f"{lab.train} was refused .SignatureDoesNotMatch.: the secret key is wrong"):
        lab.through(wrong).take()
    assert_nothing_recorded(lab)


@pytest.mark.parametrize("request_of", ["listing", "copy", "record"])
def test_a_clock_that_is_wrong_is_told(lab: Lab, proxy: S3Proxy, request_of: str) -> None:
    # The answer of S3, and of SeaweedFS, to a signature that is more than 15 minutes off.
    matches = {"listing": lists(lab.train), "copy": copies(lab), "record": record_of(lab)}[request_of]
    proxy.harm(matches, Harm(status=403, code="RequestTimeTooSkewed"), last=EVERY_TIME)
    with pytest.raises(ConfigError, match="the clocks of this host and of the S3 server differ"):
        lab.through(proxy.server).take()
    assert_nothing_recorded(lab)


# Servers that answer otherwise


def test_a_server_without_etags_is_refused_since_an_overwrite_would_go_unseen(tmp_path: Path) -> None:
    with juicefs(tmp_path, etags="none") as server:
        lab = filled(Lab.on(server))
        with pytest.raises(ConfigError, match=r"'cat/0.png'.*--keep-etag"):
            lab.take()
        assert_nothing_recorded(lab)


@pytest.mark.parametrize("server", ["s3_server", "plain_s3_server"])
def test_whichever_way_pictures_were_uploaded_and_named_it_is_the_same_dataset(
    server: str, request: pytest.FixtureRequest
) -> None:
    at_once, in_parts = (Lab.on(request.getfixturevalue(server)) for _ in range(2))
    for name in NAMES:
        at_once.put(f"cat/{name}", name.encode())
        in_parts.put_in_parts(f"cat/{name}", name.encode())
    taken = at_once.take()
    # The ETags of the others are no md5s: each is read, by its name, and hashed.
    assert in_parts.take().md5 == taken.md5
    assert assert_whole(in_parts, catalogue_of(in_parts).ids()[0]) == {f"cat/{name}": name.encode() for name in NAMES}


def test_keys_that_begin_with_a_slash_are_refused_by_name(plain_s3_server: S3Server) -> None:
    lab = filled(Lab.on(plain_s3_server))
    with s3_proxy(plain_s3_server) as proxy:
        # Both servers here drop it when they are given such a key; others keep it.
        as_elsewhere = Harm(altered=lambda body: body.replace(b"<Key>cat/0.png", b"<Key>/at/0.png"))
        proxy.harm(lists(lab.train), as_elsewhere, last=EVERY_TIME)
        with pytest.raises(DataError, match=r"'/at/0.png' \(an absolute path\)"):
            lab.through(proxy.server).take()
    assert_nothing_recorded(lab)


def test_the_tags_of_a_picture_are_not_those_of_its_pinned_content(lab: Lab) -> None:
    lab.client.put_object(Bucket=lab.train, Key="cat/tagged.png", Body=b"tagged", Tagging="keep=a-week")
    lab.take()
    assert lab.client.get_object_tagging(Bucket=lab.dvc, Key=content_key(md5(b"tagged")))["TagSet"] == []


# Requests that fail


@pytest.mark.parametrize(
    "harm", [SLOW_DOWN, Harm(dropped=True), Harm(lost=True)], ids=["told to slow down", "dropped", "answers lost"]
)
def test_a_server_in_trouble_for_a_while_costs_only_time(lab: Lab, proxy: S3Proxy, harm: Harm) -> None:
    rule = proxy.harm(once_each(lambda _: True), harm, last=EVERY_TIME)
    taken = lab.through(proxy.server).take()
    assert rule.met > 15
    assert assert_whole(lab, taken.snapshot_id) == {**PICTURES, "dog/parts.png": b"in parts"}
    assert catalogue_of(lab).ids() == [taken.snapshot_id]


def test_an_error_inside_a_copy_that_was_answered_200_is_an_error(lab: Lab, proxy: S3Proxy) -> None:
    proxy.harm(once_each(copies(lab)), Harm(status=200, code="InternalError"), last=EVERY_TIME)
    assert len(assert_whole(lab, lab.through(proxy.server).take().snapshot_id)) == 5


@pytest.mark.parametrize("request_of", ["listing", "copy", "hash", "record"])
def test_a_server_that_stays_in_trouble_is_unavailable_and_nothing_is_half_there(
    lab: Lab, proxy: S3Proxy, request_of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "RETRIES", 1)
    matches = {
        "listing": lists(lab.train), "copy": copies(lab), "hash": reads(lab.train), "record": record_of(lab)
    }[request_of]  # fmt: skip
    proxy.harm(matches, SLOW_DOWN, last=EVERY_TIME)
    with pytest.raises(UnavailableError, match="Is the server up"):
        lab.through(proxy.server).take()
    assert_nothing_recorded(lab)


def test_a_record_whose_answer_is_lost_is_the_snapshot_that_was_taken(lab: Lab, proxy: S3Proxy) -> None:
    proxy.harm(lambda call: record_of(lab)(call) and call.key.endswith(".json"), Harm(lost=True))
    taken = lab.through(proxy.server).take()
    assert catalogue_of(lab).ids() == [taken.snapshot_id]
    assert len(assert_whole(lab, taken.snapshot_id)) == 5


# What passes through the client


def test_of_new_pictures_a_sample_passes_through_the_client_and_of_the_others_none(
    s3_server: S3Server, proxy: S3Proxy
) -> None:
    lab = Lab.on(s3_server)
    through = lab.through(proxy.server)
    for n in range(30):
        lab.put(f"cat/{n}.png", f"{n:02}".encode() * 1000)
    through.take()
    assert proxy.count(reads(lab.train)) == (hashing.SAMPLED, hashing.SAMPLED * 2000)
    copied, _ = proxy.count(copies(lab))
    assert copied == 30
    assert through.take().status == "existing"
    lab.put("cat/new.png", b"new")
    through.take()
    assert proxy.count(reads(lab.train)) == (hashing.SAMPLED + 1, hashing.SAMPLED * 2000 + 3)
    assert proxy.count(copies(lab))[0] == 31


# Listings that break off

MANY = 1200  # more than one page


@pytest.fixture(scope="module")
def large_lab(s3_server: S3Server) -> Lab:
    """A bucket whose listing has two pages."""
    lab = Lab.on(s3_server)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: lab.put(f"cat/{n}.png", b"the same"), range(MANY)))
    return lab


@pytest.mark.parametrize(
    "harm",
    [Harm(cut=1000), Harm(cut=0), Harm(altered=lambda body: body[:1000].ljust(len(body)))],
    ids=["closed in the middle of a page", "closed before a page", "half a page that claims to be one"],
)
def test_a_listing_that_breaks_off_is_not_taken_for_the_whole(large_lab: Lab, proxy: S3Proxy, harm: Harm) -> None:
    rule = proxy.harm(second_pages(large_lab.train), harm, last=EVERY_TIME)
    with pytest.raises(UnavailableError, match=f"listing the bucket {large_lab.train} failed"):
        large_lab.through(proxy.server).take()
    assert rule.met
    assert_nothing_recorded(large_lab)


def test_a_folder_of_a_large_bucket_whose_page_breaks_off_is_listed_again(
    large_lab: Lab, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGES_IN_ONE_STREAM", 0)
    rule = proxy.harm(second_pages(large_lab.train), Harm(cut=1000))
    assert len(listing.read(large_lab.through(proxy.server).access, large_lab.train)) == MANY
    assert rule.met >= 2


def test_a_page_whose_request_fails_is_asked_for_again(large_lab: Lab, proxy: S3Proxy) -> None:
    rule = proxy.harm(second_pages(large_lab.train), Harm(dropped=True))
    assert large_lab.through(proxy.server).take().count == MANY
    assert rule.met >= 2


# Pictures that change meanwhile


@pytest.mark.parametrize("server", ["s3_server", "plain_s3_server"])
@pytest.mark.parametrize("act", ["overwritten", "deleted"])
@pytest.mark.parametrize("before", ["copy", "hash"])
def test_a_picture_changed_after_it_was_listed_is_never_mixed_in(
    server: str, act: str, before: str, request: pytest.FixtureRequest
) -> None:
    lab = filled(Lab.on(request.getfixturevalue(server)))
    key, put = ("cat/0.png", lab.put) if before == "copy" else ("dog/parts.png", lab.put_in_parts)
    copied = content_key(md5(PICTURES["cat/0.png"]))
    of_it: Matches = {
        "copy": lambda call: call.method == "PUT" and call.key == copied,
        "hash": lambda call: call.method == "GET" and call.key == key,
    }[before]
    # Nor where the new content would not have to be copied.
    lab.client.put_object(Bucket=lab.dvc, Key=content_key(md5(b"another")), Body=b"another")
    settled = listing.digest(listing.read(lab.access, lab.train))
    with s3_proxy(lab.server) as proxy:
        rule = proxy.harm(of_it, Harm(before=lambda: lab.delete(key) if act == "deleted" else put(key, b"another")))
        result = lab.through(proxy.server).take(expected_digest=settled)
    assert rule.met == 1
    assert (result.status, result.snapshot_id) == ("changed", None)
    assert key in result.reason
    assert_nothing_recorded(lab)
    assert assert_whole(lab, lab.take().snapshot_id).keys() == set(lab.keys(lab.train))


def test_by_hand_a_bucket_that_changed_meanwhile_is_listed_again_at_once(lab: Lab, proxy: S3Proxy) -> None:
    def overwrite() -> None:
        for key in PICTURES:
            lab.put(key, b"another")

    proxy.harm(copies(lab), Harm(before=overwrite))
    taken = lab.through(proxy.server).take()
    assert taken.status == "created"
    assert set(assert_whole(lab, taken.snapshot_id).values()) == {b"another", b"in parts"}


# Processes killed


@pytest.mark.parametrize("then", ["the same", "changed"])
def test_killed_at_any_write_and_run_again_it_is_one_whole_snapshot(lab: Lab, proxy: S3Proxy, then: str) -> None:
    through = lab.through(proxy.server)
    expected = 0
    for write in count(1):
        change(lab, write)
        process = through.taking()
        # What matters is what the server holds; between two writes that is always the same.
        proxy.harm(lambda call: call.writes, Harm(after=partial(kill, process)), first=write)
        process.start()
        process.join(60)
        if process.exitcode == 0:  # it has fewer writes
            break
        assert process.exitcode == -SIGKILL
        assert_the_remote_is_sound(lab)
        ids = catalogue_of(lab).ids()
        assert len(ids) - expected in {0, 1}
        for each in ids[expected:]:
            assert_whole(lab, each)
        if then == "changed":
            lab.put("cat/last.png", f"last {write}".encode())
            expected = len(ids)
        taken = lab.take()
        expected += 1
        assert len(catalogue_of(lab).ids()) == expected
        assert assert_whole(lab, taken.snapshot_id) == {key: lab.read(lab.train, key) for key in lab.keys(lab.train)}
        proxy.forget_harm()
    assert write > 5
    names = [key.removeprefix(f"snapshots/{PROJECT}/") for key in lab.keys(lab.airlock, f"snapshots/{PROJECT}/")]
    assert names == sorted(f"{each}.{kind}" for each in catalogue_of(lab).ids() for kind in ("dvc", "json", "sizes"))


def change(lab: Lab, number: int) -> None:
    lab.put("cat/0.png", f"changed {number}".encode())
    lab.put(f"cat/new {number}.png", f"new {number}".encode())
    lab.put_in_parts("dog/parts.png", f"in parts {number}".encode())


def kill(process: BaseProcess) -> None:
    process.kill()
    wait([process.sentinel])  # join() is for one thread only


# Downloads


@pytest.fixture
def remote(s3_server: S3Server) -> tuple[Lab, dict[str, int]]:
    """A DVC remote with contents of several sizes, and those sizes by md5."""
    lab = Lab.on(s3_server)
    bodies = [os.urandom(size) for size in (10, 5000, 6 << 20)]
    for body in bodies:
        lab.client.put_object(Bucket=lab.dvc, Key=content_key(md5(body)), Body=body)
    return lab, {md5(body): len(body) for body in bodies}


@pytest.mark.parametrize(
    "harm",
    [Harm(cut=7), Harm(altered=lambda body: bytes(len(body))), SLOW_DOWN, Harm(dropped=True)],
    ids=["cut off", "wrong bytes", "told to slow down", "dropped"],
)
def test_a_download_that_goes_wrong_once_is_done_again(
    remote: tuple[Lab, dict[str, int]], proxy: S3Proxy, harm: Harm, tmp_path: Path
) -> None:
    lab, sizes = remote
    rule = proxy.harm(once_each(reads(lab.dvc)), harm, last=EVERY_TIME)
    cache = Cache(tmp_path)
    assert cache.fetch(lab.through(proxy.server).access, lab.dvc, sizes) == Fetched(3, sum(sizes.values()))
    assert rule.met == 3
    assert {digest: md5(cache.path(digest).read_bytes()) for digest in sizes} == {digest: digest for digest in sizes}


def test_a_download_that_is_always_cut_off_is_told_and_never_visible(
    remote: tuple[Lab, dict[str, int]], proxy: S3Proxy, tmp_path: Path
) -> None:
    lab, sizes = remote
    largest = max(sizes, key=lambda digest: sizes[digest])
    proxy.harm(lambda call: reads(lab.dvc)(call) and largest[2:] in call.key, Harm(cut=1000), last=EVERY_TIME)
    cache = Cache(tmp_path)
    with pytest.raises(UnavailableError, match=f"reading {lab.dvc}/{content_key(largest)} failed"):
        cache.fetch(lab.through(proxy.server).access, lab.dvc, sizes)
    assert not cache.path(largest).exists()
    cache.fetch(lab.access, lab.dvc, sizes)
    assert md5(cache.path(largest).read_bytes()) == largest


def test_a_download_that_always_has_wrong_bytes_is_named_and_never_visible(
    remote: tuple[Lab, dict[str, int]], proxy: S3Proxy, tmp_path: Path
) -> None:
    lab, sizes = remote
    proxy.harm(reads(lab.dvc), Harm(altered=lambda body: bytes(len(body))), last=EVERY_TIME)
    cache = Cache(tmp_path)
    with pytest.raises(DataError, match="is damaged: its bytes do not have that md5"):
        cache.fetch(lab.through(proxy.server).access, lab.dvc, sizes)
    assert not any(cache.path(digest).exists() for digest in sizes)
