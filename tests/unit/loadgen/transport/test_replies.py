import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.transport import replies
from dlbench.loadgen.transport.replies import BadReplyError, Heads, Reply, ReplyReader

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nabc\r\n0\r\n\r\n"
)
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN
CLOSING = b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
OLD = b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx"

WHOLE = {
    PLAIN: Reply(200, True, b"hello"),
    CHUNKED: Reply(200, True, b"helloabc"),
    CONTINUED: Reply(200, True, b"hello"),
    CLOSING: Reply(503, False, b""),
    EMPTY: Reply(204, True, b""),
    OLD: Reply(200, False, b"x"),
}


@pytest.mark.parametrize(("data", "expected"), WHOLE.items())
def test_a_reply_in_one_piece(data, expected):
    assert ReplyReader(Heads()).feed(data) == expected


@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_a_reply_in_any_pieces(data, draw):
    cuts = sorted(draw.draw(st.sets(st.integers(1, len(data) - 1), max_size=6)))
    reader = ReplyReader(Heads())
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    replies = [reader.feed(piece) for piece in pieces]
    assert replies[-1] == WHOLE[data]
    assert replies[:-1] == [None] * len(cuts)


def test_a_404_that_says_nothing_is_explained_every_time():
    lost = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    heads = Heads()
    for _ in range(2):
        assert ReplyReader(heads).feed(lost).body == b"there is nothing at this path of the URL"
    told = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"
    assert ReplyReader(heads).feed(told).body == b"no"


def test_only_replies_with_a_length_that_stay_open_are_learned():
    heads = Heads()
    for data in WHOLE:
        ReplyReader(heads).feed(data)
    assert heads.known == {b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n": (5, 200)}


def test_the_last_head_is_at_hand_with_the_size_of_its_whole_reply():
    heads = Heads()
    ReplyReader(heads).feed(PLAIN)
    assert heads.last == (PLAIN[:-5], len(PLAIN), 200)


def test_heads_that_always_differ_do_not_fill_the_memory():
    heads = Heads()
    for number in range(3000):
        ReplyReader(heads).feed(b"HTTP/1.1 200 OK\r\nId: %d\r\nContent-Length: 0\r\n\r\n" % number)
    assert len(heads.known) <= 1024


def test_the_end_of_the_connection_ends_a_reply_without_a_length():
    reader = ReplyReader(Heads())
    assert reader.feed(b"HTTP/1.1 200 OK\r\n\r\nsome") is None
    assert reader.eof() == Reply(200, keep_alive=False, body=b"some")


@pytest.mark.parametrize("data", [b"", PLAIN[:-1], PLAIN[:10], CHUNKED[:-4]])
def test_a_reply_that_is_cut_off(data):
    reader = ReplyReader(Heads())
    if data:
        reader.feed(data)
    assert reader.eof() is None


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH_9\r\n", b"\0\1\2", PLAIN + PLAIN, PLAIN + b"x"])
def test_garbage_and_too_much(data):
    with pytest.raises(BadReplyError):
        ReplyReader(Heads()).feed(data)


def test_a_reply_that_never_ends_is_not_kept(monkeypatch):
    monkeypatch.setattr(replies, "BODY_LIMIT", 10)
    reader = ReplyReader(Heads())
    reader.feed(b"HTTP/1.1 200 OK\r\n\r\n12345")
    with pytest.raises(BadReplyError, match="more than 10 bytes"):
        reader.feed(b"678901")


@given(st.binary(min_size=1, max_size=300))
def test_no_bytes_do_more_than_raise_bad_reply(data):
    reader = ReplyReader(Heads())
    try:
        reader.feed(data)
        reader.eof()
    except BadReplyError:
        pass
