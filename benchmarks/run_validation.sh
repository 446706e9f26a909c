#!/bin/sh
# The validation figures of the README and the model card, each from one command.
#
#   CFRSEG_DATA=DATA benchmarks/run_validation.sh OUT [peers|refinement|robot|paper]…
#
# A killed run goes on where it stopped when started again. WORKERS processes (2), each
# with one thread. The test split is run once, for the final model: SIDE=test.
set -eu

OUT=${1:?usage: run_validation.sh OUT [peers|refinement|robot|paper]…}
shift
HERE=$(dirname "$0")
SIDE=${SIDE:-validation}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" OMP_WAIT_POLICY=PASSIVE

measure() {
    report=$1
    shift
    cfrseg evaluate "${CFRSEG_DATA:?name the data folder}" \
        --split "$HERE/split.json" --side "$SIDE" --workers "${WORKERS:-2}" \
        --device "${DEVICE:-cpu}" --out "$OUT/$SIDE-$report" "$@"
}

for part in "${@:-peers}"; do
    case $part in
    peers) # the default model against classical tools
        measure peers --segmenter default \
            --segmenter grabcut --segmenter random-walker --segmenter watershed ;;
    refinement) # CFR-ICL's Table 3 on micrographs
        measure refinement --segmenter default --refinement standard \
            --refinement CFR-1 --refinement CFR-4 --refinement A-CFR-4 ;;
    robot) # how much it matters where people click
        measure robot --segmenter default --robot human \
            --seed 1 --seed 2 --seed 3 ;;
    paper) # the default network under the papers' Zoom-In, flip and cascade
        measure paper --segmenter default --protocol simpleclick \
            --refinement standard --refinement A-CFR-4 ;;
    *) echo "no part $part: peers, refinement, robot or paper" >&2; exit 2 ;;
    esac
done
