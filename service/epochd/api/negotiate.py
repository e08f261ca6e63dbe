"""Which of the media types on offer a caller likes best (RFC 9110, section 12.5.1)."""

from collections.abc import Sequence
from http import HTTPStatus

from starlette.exceptions import HTTPException


def negotiate(accept: str | None, offered: Sequence[str]) -> str:
    """Choose a media type: by quality, then by how exactly it is named, then by the order of the offer.

    Raises:
        HTTPException: 406, when none of them is acceptable.

    """
    ranges = [_parse(item) for item in (accept or "*/*").split(",") if item.strip()]
    ranked = [(_match(ranges, media_type), -place, media_type) for place, media_type in enumerate(offered)]
    (quality, _exactness), _, best = max(ranked)
    if quality <= 0:
        raise HTTPException(
            HTTPStatus.NOT_ACCEPTABLE,
            f"This can be had as {', '.join(offered)}; 'Accept' allows none of these.",
        )
    return best


def _parse(item: str) -> tuple[str, float]:
    media_range, *parameters = (part.strip() for part in item.split(";"))
    quality = next((value[2:] for value in parameters if value.lower().startswith("q=")), "1")
    try:
        return media_range.lower(), min(max(float(quality), 0.0), 1.0)
    except ValueError:
        return media_range.lower(), 0.0


def _match(ranges: Sequence[tuple[str, float]], media_type: str) -> tuple[float, int]:
    """Give the quality of the most exact range that matches, and how exact it is."""
    wanted = {media_type: 3, f"{media_type.partition('/')[0]}/*": 2, "*/*": 1}
    matching = [(wanted[name], quality) for name, quality in ranges if name in wanted]
    exactness, quality = max(matching, default=(0, 0.0))
    return quality, exactness
