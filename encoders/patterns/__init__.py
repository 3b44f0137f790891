"""Patterns of behaviour that people can read: segments of users and topics of what they consume."""

from recloop.encoders.patterns.portraits import Portrait, portraits
from recloop.encoders.patterns.segments import UserSegments
from recloop.encoders.patterns.terms import ItemTerms, item_terms
from recloop.encoders.patterns.topics import BehaviorTopics

__all__ = ["BehaviorTopics", "ItemTerms", "Portrait", "UserSegments", "item_terms", "portraits"]
