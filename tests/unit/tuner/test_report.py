"""The findings in plain sentences."""

from dlbench.tuner.config import StudyConfig
from dlbench.tuner.report import findings
from dlbench.tuner.verify import Verified


def test_what_is_uncertain_about_the_recommendation_is_said(build):
    pick = build.point(throughput=200, requests=500).model_copy(
        update={"on_front": True, "recommended": True}
    )
    config = build.DEFAULT.model_copy(update={"workers": 1})
    naive = build.point("naive", throughput=100, config=config)
    text = "\n".join(findings(Verified((pick, naive), "none"), StudyConfig()))
    assert "recommended: 200/s [undetermined] at p99 10 ms" in text
    assert "2x its throughput" in text
    assert "indicative" in text
    assert "too few of its repeats could be used" in text


def test_no_recommendation_says_why(build):
    front = build.point(p99=50).model_copy(update={"on_front": True})
    missed = findings(Verified((front,), "missed"), StudyConfig(slo_p99_ms=20))
    assert missed == ["nothing holds p99 <= 20 ms: the lowest p99 on the front is 50 ms"]
    assert "no operating point held up" in findings(Verified((), "none"), StudyConfig())[0]
