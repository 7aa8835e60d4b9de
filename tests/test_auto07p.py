"""Two of Beer's neurons in auto-07p (Doedel et al.), where Debian's package and a Fortran compiler are installed."""

import json
import shutil
import subprocess

import pytest
import torch

from ctrnn import analysis
from tests.test_continuation import two_neurons

EQUATIONS = """
SUBROUTINE FUNC(NDIM,U,ICP,PAR,IJAC,F,DFDU,DFDP)
  IMPLICIT NONE
  INTEGER, INTENT(IN) :: NDIM, ICP(*), IJAC
  DOUBLE PRECISION, INTENT(IN) :: U(NDIM), PAR(*)
  DOUBLE PRECISION, INTENT(OUT) :: F(NDIM)
  DOUBLE PRECISION, INTENT(INOUT) :: DFDU(NDIM,NDIM), DFDP(NDIM,*)
  DOUBLE PRECISION W, S1, S2
  W = PAR(1)
  S1 = 1/(1+EXP(-(U(1)-(W+1)/2)))
  S2 = 1/(1+EXP(-(U(2)-(W-1)/2)))
  F(1) = -U(1) + W*S1 + S2
  F(2) = -U(2) - S1 + W*S2
END SUBROUTINE FUNC
SUBROUTINE STPNT(NDIM,U,PAR,T)
  IMPLICIT NONE
  INTEGER, INTENT(IN) :: NDIM
  DOUBLE PRECISION, INTENT(INOUT) :: U(NDIM), PAR(*)
  DOUBLE PRECISION, INTENT(IN) :: T
  PAR(1) = 3.0D0
  U(1) = 2.0D0
  U(2) = 1.0D0
END SUBROUTINE STPNT
SUBROUTINE BCND
END SUBROUTINE BCND
SUBROUTINE ICND
END SUBROUTINE ICND
SUBROUTINE FOPT
END SUBROUTINE FOPT
SUBROUTINE PVLS
END SUBROUTINE PVLS
"""

SCRIPT = """
import json, re
common = dict(NDIM=2, NTST=60, NCOL=4, ISP=2, NMX=400, DS=0.01, DSMIN=1e-6, DSMAX=0.1, EPSL=1e-9, EPSU=1e-9, EPSS=1e-7,
              NPR=0, parnames={1: 'w', 11: 'PERIOD'})
central = run('beer', e='beer', IPS=1, ICP=[1], UZSTOP={'w': 7.0}, **common)
hopf = central('HB1')
cycles = run(hopf, IPS=2, ICP=['w', 'PERIOD'], UZR={'w': [4.1, 4.5, 5.0, 5.5]}, UZSTOP={'w': 6.0}, **common)
diagnostics = str(cycles[0].diagnostics)
multipliers = [
    re.findall(r'^ *2 +%d +Multiplier +2 +([-+0-9.E]+)' % s['PT'], diagnostics, re.M)[0] for s in cycles('UZ')
]
node = run('beer', e='beer', IRS=0, IPS=1, ICP=[1], U={1: 6.4835, 2: -0.7644}, PAR={1: 7.0},
           UZSTOP={'w': [5.0, 7.1]}, **{**common, 'DS': -0.01})
found = {
    'hopf': hopf['w'],
    'fold': node('LP1')['w'],
    'cycles': [[s['w'], s['PERIOD'], float(m)] for s, m in zip(cycles('UZ'), multipliers)],
}
open('found.json', 'w').write(json.dumps(found))
"""


@pytest.fixture(scope="module")
def auto(tmp_path_factory):
    if not (shutil.which("auto-07p") and shutil.which("gfortran")):
        pytest.skip("auto-07p, a Debian package, and gfortran are not installed: the oracle of this file is missing")
    folder = tmp_path_factory.mktemp("auto")
    (folder / "beer.f90").write_text(EQUATIONS)
    (folder / "script.auto").write_text(SCRIPT)
    done = subprocess.run(["auto-07p", "script.auto"], cwd=folder, capture_output=True, text=True, timeout=200)
    assert (folder / "found.json").exists(), done.stdout + done.stderr
    return json.loads((folder / "found.json").read_text())


@pytest.mark.slow
def test_the_hopf_point_and_the_fold_are_autos(auto):
    model, family = two_neurons()
    (hopf,) = analysis.continue_equilibria(model, torch.tensor([2.0, 1.0]), family, (3.0, 7.0)).points
    (fold,) = analysis.continue_equilibria(model, torch.tensor([6.4835, -0.7644]), family, (7.0, 5.0)).points
    assert hopf.parameter == pytest.approx(auto["hopf"], abs=1e-7)
    assert fold.parameter == pytest.approx(auto["fold"], abs=1e-7)


@pytest.mark.slow
def test_periods_and_multipliers_are_autos(auto):
    model, family = two_neurons()
    (hopf,) = analysis.continue_equilibria(model, torch.tensor([2.0, 1.0]), family, (3.0, 7.0)).points
    assert len(auto["cycles"]) == 5
    for w, period, multiplier in auto["cycles"]:
        cycle = analysis.continue_cycles(model, hopf, family, (3.0, w), intervals=60)
        assert float(cycle.period[-1]) == pytest.approx(period, rel=1e-6)
        assert float(cycle.multipliers[-1, 1].real) == pytest.approx(multiplier, rel=1e-4, abs=1e-5)
