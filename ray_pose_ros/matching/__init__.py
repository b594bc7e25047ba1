"""Points of an image and which of them are the same in another: matchers behind one interface.

Nothing here knows of cameras; numpy in and out. SIFT is always there, the learned matchers are
optional packages that are imported when one of them is made.
"""

from .features import Features, Matches
from .matchers import Matcher, MatcherUnavailable, create_matcher, matcher_names

__all__ = [
    'Features',
    'Matcher',
    'MatcherUnavailable',
    'Matches',
    'create_matcher',
    'matcher_names',
]
