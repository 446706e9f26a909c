#!/usr/bin/env bash
# Measure again every figure that depends on the default weights.
#
#   benchmarks/refresh.sh [--quick] DATA OUT [PART]…
#
# Without a PART all of them run but ablations, base and test; a part that has finished is
# skipped (delete OUT/PART.done to repeat it), and one that was killed continues. --quick
# takes minutes: a few objects per set, to see that everything runs.
#
#   card         README and model card: the default, standard to A-CFR-4, validation side
#   peers        README: the default beside classical tools
#   robot        README: human-like clicks, three seeds
#   actions      README: clicks, next candidate, outline tighter or wider
#   suggest      README: whole fields, three objects clicked and the rest suggested
#   paper        the default under the papers' Zoom-In, flip and cascade
#   field        README: a wider field
#   bench        README: time per click; the window's answer while it computes
#   networks     docs/networks.md: a click of every network
#   stacks       benchmarks/stacks.md: volumes from a few planes, calibration, planes per second
#   finetune     benchmarks/fine_tuning.md (needs OUT/finetune/base.safetensors)
#   pictures     docs/*.png (needs a display or xvfb-run)
#   base         the model without five sets that finetune starts from (an hour; PACKS)
#   ablations    benchmarks/ablations.md (hours; PACKS)
#   test         the test side, once, for the final model
#
# Environment: WORKERS (2), THREADS (1), DEVICE (cpu), OBJECTS (per set, instead of each
# part's own number), SETS (names, instead of all), FIELDS (per set, 3), PACKS (the folder
# of benchmarks/gpu/pack.py).
set -euo pipefail

usage="usage: benchmarks/refresh.sh [--quick] DATA OUT [PART]…"
quick=
if [ "${1:-}" = --quick ]; then
    quick=1
    shift
fi
data=${1:?$usage}
out=${2:?$usage}
shift 2
here=$(cd "$(dirname "$0")" && pwd)
docs=$here/../docs
mkdir -p "$out"
export OMP_NUM_THREADS="${THREADS:-1}" OMP_WAIT_POLICY=PASSIVE CFRSEG_DATA="$data"
side=validation

# of the two values, the second with --quick
either() {
    if [ -z "$quick" ]; then echo "$1"; else echo "$2"; fi
}

# NAME OBJECTS-PER-SET OPTION…: a report in OUT/NAME
measure() {
    name=$1 objects=$2
    shift 2
    for chosen in ${SETS:-}; do set -- "$@" --set "$chosen"; done
    cfrseg evaluate "$data" --split "$here/split.json" --side "$side" \
        --max-objects "$(either "${OBJECTS:-$objects}" 1)" --workers "${WORKERS:-2}" \
        --device "${DEVICE:-cpu}" --output "$out/$name" "$@"
}

# COMMAND…: in a window, on a server too
windowed() {
    if [ -n "${DISPLAY:-}" ]; then
        "$@"
    else
        xvfb-run -a -s "-screen 0 1600x1000x24" "$@"
    fi
}

stack() {
    command=$1
    shift
    python "$here/stacks.py" "$command" --threads "${THREADS:-1}" "$@"
}

run_part() {
    case $1 in
    card)
        if [ -n "$quick" ]; then measure card 40 --refinement standard; return; fi
        measure card 40 --refinement standard --refinement CFR-1 \
            --refinement CFR-4 --refinement A-CFR-4 ;;
    peers)
        measure peers 15 --segmenter default --segmenter watershed \
            --segmenter grabcut --segmenter random-walker ;;
    robot)
        if [ -n "$quick" ]; then measure robot 1 --robot human --seed 1; return; fi
        measure robot 40 --robot human --seed 1 --seed 2 --seed 3 ;;
    actions)
        measure actions 40 --actions ;;
    suggest)
        measure suggest 40 --suggest --fields "$(either "${FIELDS:-3}" 1)" ;;
    paper)
        measure paper 40 --protocol simpleclick --refinement standard \
            --refinement A-CFR-4 ;;
    test)
        side=test
        measure test 40 --refinement standard --refinement A-CFR-4
        side=validation ;;
    field)
        python "$here/large_field.py" --data "$data" --objects "$(either 8 1)" \
            --threads "${THREADS:-1}" | tee "$out/field.txt" ;;
    bench)
        cfrseg bench --threads 2 --objects "$(either 10 2)" \
            --sizes "$(either 512,2048,8192 512)" | tee "$out/bench.txt"
        windowed python "$here/gui_gap.py" --clicks "$(either 20 3)" |
            tee "$out/gui_gap.txt" ;;
    networks)
        if [ -n "$quick" ]; then
            cfrseg bench --network default --repeats 1 | tee "$out/networks.txt"
            return
        fi
        cfrseg bench --all-models --threads 1 | tee "$out/networks.txt" ;;
    stacks)
        if [ -n "$quick" ]; then
            stack evaluate --data "$data" --objects 1 --anchors 2 --sets bbbc050 \
                --every 99 --out "$out/stacks"
            return
        fi
        stack evaluate --data "$data" --side test --objects 4 --every 4 \
            --out "$out/stacks"
        stack evaluate --data "$data" --side test --sets bbbc050 --drawn \
            --objects 6 --out "$out/stacks-drawn"
        stack calibrate --data "$data" --objects 5 --out "$out/stacks" |
            tee "$out/calibration.txt"
        python "$here/stack_ends.py" --data "$data" | tee "$out/stacks-ends.txt"
        python "$here/stack_ends.py" --data "$data" --moving 0.8 --objects 5 |
            tee "$out/stacks-moving.txt"
        for planes in 50 1000; do
            stack speed --planes "$planes"
            stack speed --planes "$planes" --one-by-one
        done | tee "$out/stacks-speed.txt"
        stack ahead | tee "$out/stacks-ahead.txt" ;;
    base)
        python "$here/fine_tuning.py" base "${PACKS:?}" "$out/finetune" \
            --minutes "$(either 60 1)" --threads "${THREADS:-1}" ;;
    finetune)
        if [ ! -e "$out/finetune/base.safetensors" ]; then
            echo "refresh: finetune needs $out/finetune/base.safetensors (part base)" >&2
            return 1
        fi
        if [ -n "$quick" ]; then
            python "$here/fine_tuning.py" tune axon_sem 4 "$data" "$out/finetune" \
                --minutes 0.2 --objects 3 --threads "${THREADS:-1}"
        else
            python "$here/fine_tuning.py" all "$data" "$out/finetune" \
                --minutes 10 --threads "${THREADS:-1}"
        fi
        python "$here/fine_tuning.py" table "$out/finetune" | tee "$out/finetune.md" ;;
    pictures)
        windowed python "$docs/make_screenshot.py" --output "$out/screenshot.png"
        windowed python "$docs/make_stacks_picture.py" --output "$out/stacks.png"
        python "$docs/make_weak_spots.py" "$data" \
            "$out/card/runs/default-standard" --output "$out/weak_spots.png" ;;
    ablations)
        if [ -n "$quick" ]; then
            python "$here/ablations.py" run icl/both "${PACKS:?}" "$out/ablations" \
                --steps 4 --settle 2 --objects 1 --clicks 3
        else
            python "$here/ablations.py" all "${PACKS:?}" "$out/ablations" --steps 2000
        fi
        python "$here/ablations.py" table "$out/ablations" | tee "$out/ablations.md" ;;
    *)
        echo "refresh: no part $1; $usage" >&2
        exit 2 ;;
    esac
}

[ $# -gt 0 ] || set -- card peers robot actions suggest paper field bench networks stacks \
    finetune pictures
failed=
for part in "$@"; do
    if [ -e "$out/$part.done" ]; then
        echo "refresh: $part is done already" >&2
        continue
    fi
    echo "refresh: $part" >&2
    # a part that fails does not end the others
    set +e
    (
        set -e
        run_part "$part"
    )
    status=$?
    set -e
    if [ "$status" = 0 ]; then : > "$out/$part.done"; else failed="$failed $part"; fi
done
if [ -n "$failed" ]; then
    echo "refresh: failed:$failed" >&2
    exit 1
fi
