"""Rejections: why a delta or a decision is not taken, in one word that can be counted."""

from __future__ import annotations

from enum import StrEnum


class Rejection(StrEnum):
    """What is wrong with a delta; the first fault that is found counts.

    `DECISION` is of what a device tells of its decision; its delta is judged by itself.
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
    DECISION = "bad_decision"


class RejectedError(ValueError):
    """A delta that is not taken.

    Attributes:
        reason: Why.
    """

    def __init__(self, reason: Rejection, told: str) -> None:
        super().__init__(f"{reason}: {told}")
        self.reason = reason
