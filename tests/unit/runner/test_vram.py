"""Whether a card is free for a trainer."""

from runner.vram import Card, read_cards, reason_not_to_start


def card(used):
    return Card(index=1, name="Tesla T4", total_mib=15_360, used_mib=used)


def test_a_card_that_others_fill_is_named_with_a_remedy():
    reason = reason_not_to_start(card(12_000))

    assert reason.startswith("GPU 1 (Tesla T4) is in use by another program: 12,000 of 15,360 MiB")


def test_a_card_with_room_and_no_card_at_all_may_start():
    assert reason_not_to_start(card(500)) == ""
    assert reason_not_to_start(None) == ""


def test_a_machine_without_a_driver_has_no_cards_and_no_error():
    assert all(one.total_mib > 0 for one in read_cards())
