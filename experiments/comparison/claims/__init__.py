"""The one rule for claims: which policy is better, how far that is known, and what would settle the rest.

"A beats B" is claimed where every member of the training ensemble and every judge say so beyond a margin, a paired t
test over users passes at 5 % in each of them after Holm's correction over all pairs, every training seed has the same
sign, and neither policy is flagged (acts beyond the log). A claim has a level, always named:

1. *this trained policy in this world*: the rule holds for the policies as they were trained;
2. *this method in this world*: three seeds or more, and the test passes over users and trainings at once
   (`crossed_interval`), where a policy is trained anew with each seed: trainings of one method differ, and three of
   them may all fall out alike by chance;
3. *across judges*: two judges or more are among those who say so, and every gate of the training users and of the
   judges passed; level 2 is asked for first where a policy is trained anew. A gate that failed, or that cannot tell,
   takes this level away and is named;
4. *outside*: moreover the truth says so, where there is one, or else the log backs it: what it leaves open of the two
   values (their brackets) does not overlap.

Where trainings are added until pairs are decided (`compare --seeds 3:10`), claims are looked at after 3, 5, 8 and 10
seeds, and a claim once made stays. Retrained pairs are then tested over users and seeds alone, in place of one sign in
every seed. The 5 % are spent over the looks in proportion to the seeds that each adds, each look corrected by Holm:
whatever the looks have to do with each other, the chance of any false claim among all pairs at any look is at most the
sum, 5 %. AdaStop (Mathieu et al. 2023) spends the same way in permutation tests, which with so many pairs can decide
nothing before some ten seeds; this test can after three, and takes means for nearly normal.

`compare`, `agreement`, the report, TensorBoard and the truth study all ask here.
"""

from recloop.experiments.comparison.claims.claim import PLANNING, Claim, ClaimCount, Level, count
from recloop.experiments.comparison.claims.evidence import FIXED_ON, ClaimRules, Evidence, Witness
from recloop.experiments.comparison.claims.rule import claims_from, claims_of, claims_over, truth_sign

__all__ = [
    "FIXED_ON",
    "PLANNING",
    "Claim",
    "ClaimCount",
    "ClaimRules",
    "Evidence",
    "Level",
    "Witness",
    "claims_from",
    "claims_of",
    "claims_over",
    "count",
    "truth_sign",
]
