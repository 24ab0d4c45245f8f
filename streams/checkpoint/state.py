"""The state of a partition up to an offset, as a checkpoint has it. Taking it copies little."""

import sys
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from schemas.shard import Shard
from streams.checkpoint.files import Rest
from streams.gallery.collection import Collection
from streams.gallery.gallery import Gallery
from streams.gallery.scope import Scope
from streams.gallery.segment import Segment
from streams.gallery.without_vector import WithoutVector


@dataclass(frozen=True, slots=True)
class ScopeState:
    """One encoder's embeddings in one collection."""

    collection: str
    encoder: str
    segments: list[Segment]
    rest: Rest
    compacted_at: datetime | None = None
    begun_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class State:
    """The state that follows from the log below `offset`. `absent` are pairs with a collection, earlier ones first."""

    offset: int
    scopes: list[ScopeState]
    absent: list[tuple[str, WithoutVector]]


def state_of(gallery: Gallery, offset: int) -> State:
    """The state of a gallery that has the log below an offset. Later changes of the gallery do not change it."""
    absent = []
    for name, collection in gallery.collections.items():
        lately = collection.absent_lately()
        absent += [(name, one) for one in (*collection.absent, lately) if len(one)]
    scopes = [
        ScopeState(
            collection,
            encoder,
            list(scope.segments),
            Rest(scope.delta.living_rows(), [segment.alive.copy() for segment in scope.segments]),
            scope.compacted_at,
            scope.begun_at,
        )
        for collection, encoder, scope in gallery.scopes()
    ]
    return State(offset, scopes, absent)


def gallery_of(state: State, shard: Shard, most_collections: int = sys.maxsize) -> Gallery:
    """The gallery of a state. See `Gallery`."""
    gallery = Gallery(shard, most_collections)
    for name, absent in state.absent:
        gallery.collections.setdefault(name, Collection()).add_absent(absent)
    for kept in state.scopes:
        collection = gallery.collections.setdefault(kept.collection, Collection())
        scope = Scope.of_dimensions(kept.rest.rows.vectors.shape[1])
        scope.compacted_at, scope.begun_at = kept.compacted_at, kept.begun_at
        collection.scopes[kept.encoder] = scope
        for segment, alive in zip(kept.segments, kept.rest.alive, strict=True):
            segment.remove_rows(np.flatnonzero(~alive))
            scope.segments.append(segment)
        collection.hold(kept.encoder, kept.rest.rows)
    for collection in gallery.collections.values():
        collection.count_living()
    return gallery
