"""A run on two devices: nothing compares, ranks or draws a backend beside one of another device."""

import json

import msgspec
import pytest
import vl_convert
from helpers import synthetic_results, two_device_results
from helpers.browser import Opened
from helpers.synthetic_results import HOSTILE
from helpers.two_device_results import GPU, ON_CPU, ON_GPU

import rnnbench
from rnnbench import reports
from rnnbench.reports import by_device, of_device
from rnnbench.reports.failures import losses
from rnnbench.reports.gallery import all_charts, gallery, time_over_length
from rnnbench.reports.summary import summary
from rnnbench.reports.versus import bar_points, bar_text
from rnnbench.reports.winners import winners
from rnnbench.results.reader import read

DEVICE_OF = dict.fromkeys(ON_CPU, "cpu") | dict.fromkeys(ON_GPU, GPU)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The results file, beside it the roofs of its CPU."""
    folder = tmp_path_factory.mktemp("two")
    synthetic_results.write_roofs(folder)
    return two_device_results.write(folder / "two.jsonl")


@pytest.fixture(scope="module")
def data(two):
    return reports.to_pandas(two)


@pytest.fixture(scope="module")
def page(two):
    return reports.write_html(two, two.with_suffix(".html"))


def named(text: str) -> set[str]:
    """The devices of the backends that a text names."""
    return {device for name, device in DEVICE_OF.items() if name in text}


# frames


def test_pairs_and_speeds_are_of_one_device_against_its_own_baseline(data):
    assert len(data.pairs)
    assert (data.pairs["backend"].map(DEVICE_OF) == data.pairs["other"].map(DEVICE_OF)).all()
    assert data.baselines == {"cpu": "numba_cpu", GPU: "numba_cuda"}
    assert data.baseline == "numba_cpu"
    compared = data.summary[data.summary["device"].notna()]
    assert (compared["baseline"].map(DEVICE_OF) == compared["device"]).all()
    assert (compared["backend"].map(DEVICE_OF) == compared["device"]).all()
    measured = compared[(compared["status"] == "measured") & (compared["backend"] != compared["baseline"])]
    assert measured["speedup"].notna().all()


def test_a_baseline_that_is_asked_for_is_that_of_its_device_alone(two):
    data = reports.to_pandas(two, "torch_cuda")
    assert (data.baseline, data.baselines) == ("torch_cuda", {"cpu": "numba_cpu", GPU: "torch_cuda"})


def test_a_backend_that_names_no_device_counts_as_one_on_the_cpu(two, tmp_path):
    contents = read(two)
    facts = contents.run.backends | {"torch_nn": {"threads": 1}}
    from rnnbench.reports.frames import frames

    found = frames(contents._replace(run=msgspec.structs.replace(contents.run, backends=facts)))
    assert found.devices == DEVICE_OF


def test_the_frames_of_one_device_hold_nothing_of_the_other(data):
    for device, names in (("cpu", ON_CPU), (GPU, ON_GPU)):
        part = of_device(data, device)
        assert tuple(part.backends) == names
        for frame in (part.times, part.summary, part.pairs, part.gates, part.failures, part.startup):
            assert set(frame["backend"]) <= set(names)
        assert {name for _, name in part.samples} == set(names)
        assert set(part.summary["baseline"]) == {part.baseline} <= set(names)
    with pytest.raises(rnnbench.ArgumentError, match=f"device is 'TPU'; expected one of cpu, {GPU}"):
        of_device(data, "TPU")


def test_the_roofs_are_the_cpus(two, data, tmp_path):
    assert data.roofs is not None
    assert of_device(data, "cpu").roofs is not None
    assert of_device(data, GPU).roofs is None
    synthetic_results.write_roofs(tmp_path)
    there = reports.to_pandas(two_device_results.write(tmp_path / "gpu.jsonl", cpu=GPU))
    assert there.roofs is None
    assert not any("multiply-add peak" in answer.text for answer in summary(there))


# sentences


def test_no_answer_that_ranks_names_backends_of_two_devices(data):
    ranking = [answer for answer in summary(data) if answer.topic not in ("Correctness", "Failures", "Trust")]
    assert len(ranking) == 2 * 3 + 1  # inference, training, start-up; the CPU's roofline
    for answer in ranking:
        (device,) = named(answer.text)
        assert {device} == set().union(*map(named, answer.details))
        assert answer.text.startswith("On the CPU: " if device == "cpu" else f"On {GPU}: ")
    assert any(answer.text.startswith(f"On {GPU}: for inference (forward), numba_cuda is fastest in 12") for answer in ranking)
    trust = summary(data)[-1].text
    assert "comparisons with numba_cpu and numba_cuda" in trust


def test_of_one_device_no_sentence_speaks(two, tmp_path):
    data = reports.to_pandas(two_device_results.write(tmp_path / "one.jsonl", gpu="cpu"))
    assert len(by_device(data)) == 1
    assert not any(answer.text.startswith("On ") for answer in summary(data))
    assert "## Times\n\nTime of a call" in reports.to_markdown(data)


def test_each_case_has_a_winner_on_each_device(data):
    found = winners(data)
    assert len(found) == 2 * len(data.cases)
    assert not found.duplicated(["case", "device"]).any()
    assert (found["backend"].map(DEVICE_OF) == found["device"]).all()


def test_losses_are_those_to_backends_beside_the_baseline(data):
    found = losses(data)
    assert {row["baseline"] for row in found} == {"numba_cpu", "numba_cuda"}
    assert all(DEVICE_OF[row["baseline"]] == DEVICE_OF[row["backend"]] for row in found)


def test_bars_compare_with_peers_on_the_same_device(data):
    assert set(bar_points(data, "numba_cuda")["peer"].dropna()) <= set(ON_GPU)
    assert named(bar_text(data, "numba_cuda")) == {GPU}
    assert named(bar_text(data, "numba_cpu")) == {"cpu"}
    with pytest.raises(rnnbench.ArgumentError, match=f"torch_nn is on cpu; expected peers of numba_cuda on {GPU}"):
        bar_points(data, "numba_cuda", ["torch_nn"])


# documents


def test_markdown_has_a_table_of_each_device(data):
    times = reports.to_markdown(data).replace("\\_", "_").split("## Times")[1].split("## Failures")[0]
    _, cpu, gpu = times.split("### On ")
    assert cpu.startswith("the CPU\n")
    assert (named(cpu), named(gpu)) == ({"cpu"}, {GPU})


def test_json_and_csv_tell_the_device_of_each_result(data):
    document = json.loads(reports.to_json(data))
    assert (document["devices"], document["baselines"]) == (data.devices, data.baselines)
    assert {row["backend"]: row["device"] for row in document["summary"] if row["device"]} == DEVICE_OF
    assert "device" in reports.to_csv(data).splitlines()[0].split(",")


def test_charts_are_drawn_once_for_each_device_and_hold_its_backends_alone(data):
    drawn = gallery(data).drawn
    assert len({one.name for one in drawn}) == len(drawn)
    for one in drawn:
        device = "cpu" if one.name.endswith("-on-cpu") else GPU
        assert one.name.endswith(("-on-cpu", "-on-nvidia-h100-80gb-hbm3"))
        assert one.title.endswith(f", on {'the CPU' if device == 'cpu' else GPU}")
        assert named(json.dumps(one.specification)) == {device}
        assert "<svg" in vl_convert.vegalite_to_svg(one.specification)
    kinds = {one.name.split("-on-")[0] for one in drawn if one.name.endswith("-on-cpu")}
    assert {"map_T", "length", "hidden", "roofline", "startup", "gates"} <= kinds
    assert "roofline-on-nvidia-h100-80gb-hbm3" not in all_charts(data)


def test_a_single_chart_is_of_the_frames_of_one_device(data):
    with pytest.raises(rnnbench.ArgumentError, match=r"expected the frames of one device: of_device\(data, 'cpu'\)"):
        time_over_length(data)
    assert time_over_length(of_device(data, GPU))


# the page


def test_the_page_shows_one_device_at_a_time(browser, page):
    with Opened(browser, page) as opened:
        for value, names, words in (("0", ON_CPU, "on the CPU: "), ("1", ON_GPU, f"on {GPU}: "), ("0", ON_CPU, "on the CPU: ")):
            opened.pick("device", value)
            assert set(opened.column("backend")) == set(names)
            assert words in opened.page.inner_text("#selection p")
            assert set(opened.page.locator("#selection tbody th").all_inner_texts()) == set(names)
            options = opened.page.locator("#filters [name=baseline] option").all_inner_texts()
            assert options == list(names)
            drawn = opened.page.locator("figure .chart svg text").all_text_contents()
            shown = {text for text in drawn if text in DEVICE_OF}
            assert shown == set(names)
            roofline = opened.page.locator("[data-chart=roofline]")
            assert roofline.locator(".chart svg.marks").count() == (names == ON_CPU)
            if names == ON_GPU:
                assert "Roofs are measured for the CPU only." in roofline.inner_text()
        assert opened.complaints == []


def test_the_page_has_the_device_and_its_time_of_each_result(browser, page):
    with Opened(browser, page) as opened:
        assert set(opened.column("device")) == {"cpu"}
        assert set(opened.column("device time")) == {""}
        opened.pick("device", "1")
        assert set(opened.column("device")) == {GPU}
        found = dict(zip(opened.column("backend"), opened.column("device time"), strict=True))
        assert found["numba_cuda"].endswith("s")
        assert found["torch_cuda"].endswith("s")
        assert found["jax_cuda"] == ""
        assert set(opened.column("of peak")) == {""}
        opened.page.locator("#table tbody button").first.click()
        assert "device time" in opened.page.inner_text("#case dl")
        assert "of the multiply-add peak" not in opened.page.inner_text("#case dl")


def test_clearing_the_filters_goes_back_to_the_first_device_and_its_baseline(browser, page):
    with Opened(browser, page) as opened:
        opened.pick("device", "1")
        opened.pick("baseline", "jax_cuda")
        opened.page.evaluate("document.getElementById('filters').reset()")
        opened.wait()
        assert opened.page.input_value("#filters [name=device]") == "0"
        assert opened.page.input_value("#filters [name=baseline]") == "numba_cpu"
        assert opened.complaints == []


def test_on_a_phone_nothing_is_wider_than_the_page_and_the_filter_has_a_name(browser, page):
    with Opened(browser, page, width=400) as opened:
        opened.pick("device", "1")
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= 400
        assert opened.violations() == []
        assert opened.nameless_controls() == 0


def test_a_page_of_one_device_has_no_filter_for_it_and_no_empty_column(browser, tmp_path):
    page = reports.write_html(synthetic_results.write(tmp_path / "one.jsonl", hostile=False), tmp_path / "one.html")
    with Opened(browser, page) as opened:
        assert not opened.page.locator("#filters [name=device]").is_visible()
        heads = opened.page.locator("#table thead th").all_inner_texts()
        assert not any(head.startswith("device") for head in heads)
        assert "on the same device" not in opened.page.inner_text("header")


def test_a_device_with_a_hostile_name_does_not_break_the_page(browser, tmp_path):
    page = reports.write_html(two_device_results.write(tmp_path / "hostile.jsonl", gpu=HOSTILE), tmp_path / "hostile.html")
    with Opened(browser, page, width=400) as opened:
        opened.pick("device", "1")
        assert set(opened.column("backend")) == set(ON_GPU)
        assert opened.complaints == []
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= 400


def test_the_page_stays_below_its_budget(page):
    assert page.stat().st_size < 1.5e6
