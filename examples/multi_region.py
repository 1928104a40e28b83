"""One table in three regions: written in all of them, one of them cut off, equal in the end.

    python multi_region.py
"""

from __future__ import annotations

from typing import Any

import trio

import millstream

US, EU, AP = REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-1")
CARRIERS = {"UA": US, "LH": EU, "SQ": AP}


async def everything(db: millstream.Database) -> list[dict[str, Any]]:
    return sorted([item async for item in db.table("flights").scan()], key=lambda item: item["id"])


async def main() -> bool:
    async with millstream.open_regions(dict.fromkeys(REGIONS)) as regions:
        await regions[US].create_table("flights", partition_key="id")
        await regions.replicate("flights")
        print("the table is in", ", ".join(regions))

        for carrier, home in CARRIERS.items():
            for number in range(1, 4):
                await regions[home].table("flights").put({"id": f"{carrier}{number}", "at": home})
        await regions.settled()
        print("every region has", len(await everything(regions[EU])), "flights")

        regions.partition(AP, US)
        regions.partition(AP, EU)
        await regions[AP].table("flights").put({"id": "SQ4", "at": AP})
        # Two regions write the same item, and neither can know of the other.
        for region in (AP, EU):
            await regions[region].table("flights").put({"id": "UA1", "gate": f"of {region}"})
            await trio.sleep(0.01)
        apart = await everything(regions[AP]) != await everything(regions[EU])
        print(f"{AP} is cut off, and goes on by itself:", "it differs" if apart else "NO")

        regions.heal()
        await regions.settled()
        found = [await everything(regions[region]) for region in regions]
        gate = next(item["gate"] for item in found[0] if item["id"] == "UA1")
        equal = found[0] == found[1] == found[2] and len(found[0]) == 10
        verdict = "equal" if equal else "NOT equal"
        print(f"after healing all are {verdict}: {len(found[0])} flights")
        print("the last writer of UA1 won: its gate is", gate)
        return apart and equal and gate == f"of {EU}"


if __name__ == "__main__":
    raise SystemExit(0 if trio.run(main) else 1)
