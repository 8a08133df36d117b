"""Steps in a process of their own: each way to fail costs one crystal, and a good one is never blamed for long."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from ase.calculators.emt import EMT
from faulty_emt import DIARY, DIES, DIES_ONCE, HANGS, NAN, RAISES, metals
from quick_step import QuickStep

from nucleate.errors import PotentialError
from nucleate.screening.isolation import IsolatedProcess
from nucleate.screening.relax_step import RelaxStep, Settings
from nucleate.screening.step import Resources, Step, StepItem, StepResult, make_step

TIMEOUT = 15.0


@pytest.fixture
def diary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "diary"
    path.touch()
    monkeypatch.setenv(DIARY, str(path))
    return path


def _run(items: list[StepItem], step: Step, timeout: float = TIMEOUT) -> dict[str, StepResult]:
    process = IsolatedProcess(timeout)
    try:
        return {items[place].candidate_id: result for place, result in process.run(step, items)}
    finally:
        process.close()


def _items(*symbols: str) -> list[StepItem]:
    return [StepItem(symbol, crystal) for symbol, crystal in zip(symbols, metals(*symbols))]


def _step(batch_size: int, factory: str = "faulty_emt:FaultyEMT") -> RelaxStep:
    settings = Settings(check=False)
    return RelaxStep(settings, Resources(potential=factory), batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_each_fault_costs_its_crystal_only(diary: Path, batch_size: int) -> None:
    found = _run(_items("Cu", RAISES, HANGS, NAN, DIES, DIES_ONCE, "Au"), _step(batch_size), timeout=4.0)
    assert {name for name, result in found.items() if result.status == "passed"} == {"Cu", "Au", DIES_ONCE}
    assert "no self-consistency" in found[RAISES].reason
    assert found[HANGS].reason == "not finished after 4 s, and stopped"
    assert "not finite" in found[NAN].reason
    assert found[DIES].reason.startswith("its process was killed by signal 9 (SIGKILL)")
    assert found[DIES].reason.endswith("2 times")
    assert {result.status for result in found.values()} == {"passed", "failed"}


def test_without_faults_everything_passes_with_the_energy_of_ase(diary: Path) -> None:
    # Negative control: the elements that fail above are sound with the calculator they come from.
    symbols = ("Cu", RAISES, HANGS, NAN, DIES, DIES_ONCE)
    found = _run(_items(*symbols), _step(1, "ase.calculators.emt:EMT"))
    for symbol in symbols:
        result = found[symbol]
        assert result.status == "passed"
        atoms = result.crystal.to_atoms("primitive")
        atoms.calc = EMT()
        energy = atoms.get_potential_energy() / len(atoms)
        assert result.columns["energy_per_atom"] == pytest.approx(energy, abs=1e-8)


def test_a_potential_that_is_not_there_is_said_before_any_crystal() -> None:
    process = IsolatedProcess(TIMEOUT)
    step = make_step("relax", Settings(), Resources(potential="no.such.module:Calculator"))
    with pytest.raises(PotentialError, match=r"no\.such\.module"):
        process.prepare(step)
    process.close()


@pytest.mark.parametrize(
    ("fault", "is_quick", "again"),
    [
        (
            "dies",
            True,
            2,
        ),  # verdicts that wait for a common message die with their process, and are found again
        ("dies", False, 1),  # each is sent as it is found
        ("raises", True, 1),
    ],
)
def test_quick_verdicts_are_sent_together_and_none_is_lost(
    diary: Path, fault: str, is_quick: bool, again: int
) -> None:
    symbols = ("Cu", "Ag", "Ni", "Pd", "Au")
    found = _run(_items(*symbols), QuickStep("Ni", fault, is_quick))
    assert {name: result.status for name, result in found.items()} == {
        **dict.fromkeys(symbols, "passed"),
        "Ni": "failed",
    }
    assert ("on purpose" if fault == "raises" else "2 times") in found["Ni"].reason
    begun = Counter(diary.read_text().split())
    assert {name: begun[name] for name in ("Cu", "Ag", "Pd", "Au")} == {
        "Cu": again,
        "Ag": again,
        "Pd": 1,
        "Au": 1,
    }
