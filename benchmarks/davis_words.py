"""Words of DAVIS clips: the clip's noun, and a dozen common ones without those that name the object too."""

from __future__ import annotations

COMMON = ("person", "car", "dog", "bird", "grass", "tree", "road", "water", "sand", "wall", "building", "sky")
NAMES_TOO = {
    "bird": ("swan", "duck"),
    "car": ("car", "soapbox car"),
    "dog": ("dog",),
    "person": (
        "child on a swing",
        "cyclist",
        "dancer",
        "hiker",
        "hockey player",
        "horse rider",
        "kite surfer",
        "man",
        "motorcyclist",
        "paraglider",
        "person with a kite",
        "roller skater",
        "scooter rider",
        "surfer",
        "tennis player",
        "woman",
    ),
}


def words_for(noun: str) -> list[str]:
    """The noun first."""
    return [noun] + [word for word in COMMON if noun not in NAMES_TOO.get(word, ())]
