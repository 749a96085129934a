"""Rejections say in one word why a reply, a delta or a decision is not taken; they are counted."""

from __future__ import annotations

from enum import StrEnum


class Rejection(StrEnum):
    """What is wrong with a reply; the first fault that is found counts.

    `STATISTICS` and `DEVICE` reject a whole reply, `DECISION` what a device tells of its decision,
    the others its delta.
    """

    OVERSIZED = "oversized_payload"
    UNREADABLE = "unreadable"
    SCHEMA = "wrong_schema"
    CODEC = "unknown_codec"
    DIGEST = "bad_digest"
    RELEASE = "wrong_release"
    SITE = "unknown_site"
    SHAPE = "wrong_shape"
    NOT_FINITE = "not_finite"
    UNLIKE_A = "unlike_a"
    UNLIKE_RANK = "unlike_rank"
    OUT_OF_RANGE = "out_of_range"
    DECISION = "bad_decision"
    STATISTICS = "bad_statistics"
    DEVICE = "wrong_device"


class RejectedError(ValueError):
    """A delta that is not taken.

    Attributes:
        reason: Why.
    """

    def __init__(self, reason: Rejection, told: str) -> None:
        super().__init__(f"{reason}: {told}")
        self.reason = reason
