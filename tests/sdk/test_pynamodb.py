"""PynamoDB: models on top of botocore, with raw requests of its own making."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pynamodb.attributes import (
    BinaryAttribute,
    BooleanAttribute,
    JSONAttribute,
    ListAttribute,
    MapAttribute,
    NumberAttribute,
    NumberSetAttribute,
    UnicodeAttribute,
    UnicodeSetAttribute,
    UTCDateTimeAttribute,
    VersionAttribute,
)
from pynamodb.exceptions import DeleteError, DoesNotExist, PutError, TableDoesNotExist, UpdateError
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex, KeysOnlyProjection
from pynamodb.indexes import LocalSecondaryIndex as LocalIndex
from pynamodb.models import Model


class Models:
    """One set of models; PynamoDB reads the address from ``Meta`` of each class."""

    def __init__(self, endpoint: str, access_key: str) -> None:
        class Settings:
            host = endpoint
            region = "us-east-1"
            aws_access_key_id = access_key
            aws_secret_access_key = "secret"
            billing_mode = "PAY_PER_REQUEST"
            max_retry_attempts = 0

        class Address(MapAttribute[Any, Any]):
            street = UnicodeAttribute()
            lines: ListAttribute[Any] = ListAttribute(default=list)

        class ByForum(GlobalSecondaryIndex[Any]):
            class Meta(Settings):
                index_name = "by-forum"
                projection = AllProjection()

            forum = UnicodeAttribute(hash_key=True)
            views = NumberAttribute(range_key=True)

        class ByViews(LocalIndex[Any]):
            class Meta(Settings):
                index_name = "by-views"
                projection = KeysOnlyProjection()

            author = UnicodeAttribute(hash_key=True)
            views = NumberAttribute(range_key=True)

        class Post(Model):
            class Meta(Settings):
                table_name = f"posts-{uuid.uuid4().hex}"

            author = UnicodeAttribute(hash_key=True)
            subject = UnicodeAttribute(range_key=True)
            forum = UnicodeAttribute(null=True)
            views = NumberAttribute(default=0)
            pinned = BooleanAttribute(default=False)
            tags = UnicodeSetAttribute(null=True)
            scores = NumberSetAttribute(null=True)
            body = BinaryAttribute(null=True, legacy_encoding=False)
            written = UTCDateTimeAttribute(null=True)
            extra = JSONAttribute(null=True)
            address = Address(null=True)
            by_forum = ByForum()
            by_views = ByViews()

        class Counter(Model):
            class Meta(Settings):
                table_name = f"counters-{uuid.uuid4().hex}"

            name = UnicodeAttribute(hash_key=True)
            value = NumberAttribute(default=0)
            version = VersionAttribute()

        self.Post, self.Counter, self.Address = Post, Counter, Address


@pytest.fixture(scope="module")
def models(endpoint: str) -> Iterator[Models]:
    """Models whose tables are there; deleting them is tested by what follows the last test."""
    made = Models(endpoint, f"ns-pynamodb-{uuid.uuid4().hex[:12]}")
    for model in (made.Post, made.Counter):
        model.create_table(wait=True)
        assert model.exists()
    yield made
    for model in (made.Post, made.Counter):
        model.delete_table()
        assert not model.exists()
        with pytest.raises(TableDoesNotExist):
            model.describe_table()


@pytest.fixture
def author(fresh):
    return fresh("author")


def test_save_and_get_every_attribute(models, author):
    post = models.Post(
        author,
        "first",
        forum="cats",
        tags={"a", "é"},
        scores={1, 2.5},
        body=b"\x00\xff",
        written=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
        extra={"any": ["thing", None]},
        address=models.Address(street="Main St", lines=["x", 1]),
    )
    post.save()
    found = models.Post.get(author, "first", consistent_read=True)
    assert found.serialize() == post.serialize()
    assert found.written == post.written
    assert found.address.lines == ["x", 1]


def test_what_is_not_there(models, author):
    with pytest.raises(DoesNotExist):
        models.Post.get(author, "nothing")


def test_update_with_actions(models, author):
    # Each action is a clause of an update expression; ALL_NEW comes back into the model.
    post = models.Post(author, "p", tags={"a", "b"}, forum="cats", views=1)
    post.save()
    Post = models.Post
    post.update(
        actions=[
            Post.views.set(Post.views + 5),
            Post.forum.remove(),
            Post.tags.delete({"a"}),
            Post.scores.add({7}),
            Post.pinned.set(True),
        ],
        condition=(Post.views == 1) & Post.forum.exists(),
    )
    assert (post.views, post.forum, post.tags, post.scores) == (6, None, {"b"}, {7})
    assert post.serialize() == Post.get(author, "p").serialize()


def test_conditions_that_fail(models, author):
    Post = models.Post
    Post(author, "p").save()
    with pytest.raises(PutError) as caught:
        Post(author, "p").save(condition=Post.author.does_not_exist())
    assert caught.value.cause_response_code == "ConditionalCheckFailedException"
    with pytest.raises(UpdateError):
        Post(author, "p").update(actions=[Post.views.set(1)], condition=Post.views > 10)
    with pytest.raises(DeleteError):
        Post(author, "p").delete(condition=Post.forum.startswith("c") | Post.views.is_in(5, 6))
    Post(author, "p").delete(condition=~Post.forum.exists())
    assert list(Post.query(author)) == []


def test_query_with_a_range_and_filters(models, author):
    Post = models.Post
    with Post.batch_write() as batch:
        for number in range(10):
            batch.save(Post(author, f"{number}", views=number, tags={f"tag{number % 2}"}))
    found = Post.query(
        author,
        Post.subject.between("2", "8"),
        filter_condition=Post.tags.contains("tag0") & (Post.views != 4),
        scan_index_forward=False,
    )
    assert [post.subject for post in found] == ["8", "6", "2"]
    # A limit of 3 and pages of 2: it asks on from last_evaluated_key.
    pages = Post.query(author, limit=3, page_size=2)
    assert [post.subject for post in pages] == ["0", "1", "2"]
    assert pages.last_evaluated_key == {"author": {"S": author}, "subject": {"S": "2"}}
    assert Post.count(author, Post.subject >= "5") == 5


def test_both_kinds_of_index(models, author, fresh):
    Post, forum = models.Post, fresh("forum")
    for number in (3, 1, 2):
        Post(author, f"s{number}", forum=forum, views=number).save()
    by_views = Post.by_views.query(author, Post.views >= 2, consistent_read=True)
    assert [post.subject for post in by_views] == ["s2", "s3"]
    # A global index follows its table.
    for _ in range(200):
        found = [post.views for post in Post.by_forum.query(forum, Post.views < 9)]
        if len(found) == 3:
            break
    assert found == [1, 2, 3]


def test_batches(models, author):
    # More than a batch of either kind: PynamoDB cuts them into 25 and 100.
    Post = models.Post
    with Post.batch_write() as batch:
        for number in range(110):
            batch.save(Post(author, f"{number:03}"))
    keys = [(author, f"{number:03}") for number in range(112)]
    found = {post.subject for post in Post.batch_get(keys)}
    assert found == {f"{number:03}" for number in range(110)}
    with Post.batch_write() as batch:
        for number in range(110):
            batch.delete(Post(author, f"{number:03}"))
    assert Post.count(author) == 0


def test_scan_by_pages(models, author):
    Post = models.Post
    with Post.batch_write() as batch:
        for number in range(8):
            batch.save(Post(author, f"{number}"))
    found = [post.subject for post in Post.scan(Post.author == author, page_size=2)]
    assert sorted(found) == list("01234567")
    halves = [
        post.subject
        for segment in range(2)
        for post in Post.scan(Post.author == author, segment=segment, total_segments=2)
    ]
    assert sorted(halves) == list("01234567")


def test_a_version_refuses_the_second_writer(models, fresh):
    # Optimistic locking: a condition on the version in every write.
    Counter = models.Counter
    first = Counter(fresh())
    first.save()
    second = Counter.get(first.name)
    first.update(actions=[Counter.value.set(1)])
    assert first.version == 2
    with pytest.raises(UpdateError) as caught:
        second.update(actions=[Counter.value.set(2)])
    assert caught.value.cause_response_code == "ConditionalCheckFailedException"
    second.refresh()
    second.value = 3
    second.save()
    assert (second.version, Counter.get(first.name).value) == (3, 3)
