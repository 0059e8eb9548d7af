"""Whether a card is free for a trainer."""

from runner.machine.vram import CardUse, no_card, read_cards, reason_not_to_start, threats


def card(used):
    return CardUse(index=1, name="Tesla T4", total_mib=15_360, used_mib=used)


def test_a_card_that_others_fill_is_named_with_a_remedy():
    reason = reason_not_to_start(card(12_000))

    assert reason.startswith("GPU 1 (Tesla T4) is in use by another program: 11.7 GiB of 15.0 GiB")


def test_a_card_with_room_and_no_card_at_all_may_start():
    assert reason_not_to_start(card(500)) == ""
    assert reason_not_to_start(None) == ""


def test_a_machine_without_a_driver_has_no_cards_and_no_error():
    assert all(one.total_mib > 0 for one in read_cards())


def test_a_card_that_its_trainer_alone_fills_well_is_no_threat():
    assert threats(card(14_400), reserved_mib=13_700, retries=0) == {}


def test_another_program_beside_the_trainer_is_told_with_what_it_holds():
    assert "about 2.1 GiB are held by another program" in threats(card(13_000), 10_000, 0)["foreign"]
    assert "foreign" not in threats(card(11_500), 10_000, 0)


def test_the_cliff_is_told_before_memory_runs_out():
    assert "160 MiB of 15.0 GiB are left" in threats(card(15_200), 14_300, 0)["left"]
    assert "PyTorch gives cached pieces back" in threats(card(14_000), 13_300, 3)["retries"]


def test_a_notebook_s_runtime_without_a_card_is_refused_for_what_needs_one_and_says_how_to_switch():
    loads = {"tiny_p1": "fp32", "qwen_p1": "nf4"}

    assert "has no GPU, and qwen_p1 needs one: choose Runtime → Change" in no_card("colab", [], loads)
    assert "Settings → Accelerator → GPU T4 x2" in no_card("kaggle", [], loads)
    assert no_card("colab", [card(500)], loads) == ""
    assert no_card("plain", [], loads) == ""
    assert no_card("colab", [], {"tiny_p1": "fp32", "distilgpt2_p1": "auto"}) == ""


def test_a_card_that_the_platform_s_pytorch_no_longer_knows_is_refused_with_the_reason():
    old = CardUse(index=0, name="Tesla P100-PCIE-16GB", total_mib=16_276, used_mib=0, capability=(6, 0))

    said = no_card("kaggle", [old], {"qwen_p1": "nf4"})
    assert said.startswith("this runtime has a Tesla P100-PCIE-16GB, for which its PyTorch has no kernels")
    assert no_card("kaggle", [old, card(0)], {"qwen_p1": "nf4"}) == ""
    assert no_card("plain", [old], {"qwen_p1": "nf4"}) == ""  # a build of one's own may know it
