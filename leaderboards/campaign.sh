#!/usr/bin/env bash
# A board like the shipped one from nothing, on two cores, over a few nights.
#
#     bash leaderboards/campaign.sh OUT [PART ...]
#
# Parts: selection, matching, trajectories, labels, uses, graphs; each is hours on two cores (by the costs that the
# experiments name: 1, 2, 7, 9, 6 and 7), and no one has run them all in one go yet. Two parts are not among them
# unless they are asked for: digits (89 minutes but for the trajectories, on two cores that did other work as well) and
# fifty (50 images a class of the methods that take a quarter of an hour for ten: a night or more, not timed).
# Without a part: the six. Killed and started again, it goes on where it was; a job that fails is listed at the end
# and stops nothing. `dd-bench progress OUT` says how far it is. The last step adds the records to OUT/entries and writes
# OUT/tables and OUT/site.
#
# The committed entries of digits are this script's. Those of Fashion-MNIST and of graphs were measured over weeks, with
# the same commands one by one, and differ: KD tracks have three networks an entry at IPC 10 and not five; some are variants
# that answered a question (a weight of the statistics, parts of AST, twenty networks at IPC 1 under mtt-1000); of 50
# images a class there are selections, DM and DataDAM, beside five random draws with one network each instead of ten
# with two; no entry is of `fifty`.
#
# Fashion-MNIST is where dataset-fashion-mnist puts it; graphs are in data/.
set -uo pipefail
out=${1:?bash leaderboards/campaign.sh OUT [PART ...]}
shift
parts=${*:-selection matching trajectories labels uses graphs}
common=(out="$out" runtime=one_thread hydra/launcher=cores)
failed=0

sweep() { # dd-bench run, a job a core
    echo "== $*"
    dd-bench run -m --only-missing "${common[@]}" "$@" || failed=1
}

sets() { # the folders of some methods at an IPC, newest last
    for method in $1; do ls -td "$out"/sets/"$method"-fashion_mnist-ipc"$2"-* 2>/dev/null | head -1; done | paste -sd, -
}

stored_bytes() { # of the set in a folder, with its labels
    python3 -c 'import json, sys; print(sum(json.load(open(sys.argv[1] + "/card.json"))["stored_bytes"].values()))' "$1"
}

selection() {
    sweep 'experiment=glob([fashion_w32_herding,fashion_w32_kcenter,fashion_w32_kmeans])' ipc=1,10,50
    sweep 'experiment=glob([fashion_w32_herding,fashion_w32_kcenter,fashion_w32_kmeans])' ipc=1,10 protocol=mtt-1000
    sweep experiment=fashion_w32_random ipc=1,10,50 protocol=dc-300,mtt-1000
    sweep experiment=fashion_w32_random model.width=128 ipc=1,10
}

matching() {
    sweep 'experiment=glob([fashion_w32_dc,fashion_w32_dsa,fashion_w32_dm,fashion_w32_datadam,fashion_w32_ncfm])' ipc=1,10
    sweep experiment=fashion_w32_dm,fashion_w32_datadam ipc=50
    sweep experiment=fashion_w32_dm,fashion_w32_datadam ipc=1,10,50 protocol=mtt-1000
    sweep experiment=fashion_w32_datadam method=datadam_released ipc=1,10,50
}

trajectories() {
    sweep 'experiment=glob(fashion_w32_*_ipc1)'
    sweep 'experiment=glob(fashion_w32_*_ipc10)'
}

kd="fashion_kd_random,fashion_kd_rded,fashion_kd_sre2l,fashion_kd_cda,fashion_kd_infer"
kinds="sre2l-kd-400,sre2l-kd-400-static,sre2l-kd-400-replay,sre2l-kd-400-hard"

labels() {
    sweep experiment=$kd ipc=1,10 protocol=$kinds evaluator.num_networks=5
    sweep experiment=fashion_kd_sre2l method=sre2l_multi ipc=1,10 protocol=$kinds evaluator.num_networks=5
    sweep experiment=fashion_kd_infer_dyn ipc=10 protocol=infer-dyn-80,infer-dyn-80-hard evaluator.num_networks=5
}

digits() { # 8x8 pixels: the experiments of Fashion-MNIST on them
    sweep method=random num_sets=10 evaluator.num_networks=1 dataset=digits model.width=32 ipc=1,10,50 \
        protocol=dc-300,mtt-1000
    sweep method=herding,kcenter,kmeans dataset=digits model.width=32 ipc=1,10,50 protocol=dc-300
    sweep method=herding,kcenter,kmeans dataset=digits model.width=32 ipc=1,10 protocol=mtt-1000
    sweep 'experiment=glob([fashion_w32_dc,fashion_w32_dsa,fashion_w32_ncfm])' dataset=digits ipc=1,10
    sweep experiment=fashion_w32_dm,fashion_w32_datadam dataset=digits ipc=1,10,50
    sweep experiment=fashion_w32_dm,fashion_w32_datadam dataset=digits ipc=1,10 protocol=mtt-1000
    # an epoch is six steps: a student is matched with forty of them, as far as two go on Fashion-MNIST, and the gradient
    # of images of 64 pixels is larger. With eight epochs, from later starts too, and the rates of Fashion-MNIST MTT's
    # set was worth 26 %. AST's losses in between are not for so many epochs.
    sweep 'experiment=glob(fashion_w32_*_ipc1,exclude=*ast*)' dataset=digits \
        method.experts.recipe.epochs=48 method.expert_epochs=40 method.window.stop=8 method.lr_img=300
    sweep experiment=$kd dataset=digits ipc=1,10 protocol=$kinds evaluator.num_networks=5
}

fifty() {
    sweep 'experiment=glob([fashion_w32_dc,fashion_w32_dsa,fashion_w32_ncfm])' ipc=50
    sweep 'experiment=glob(fashion_w32_*_ipc10)' ipc=50
    sweep experiment=$kd ipc=50 protocol=$kinds evaluator.num_networks=5
}

uses() { # of the sets that the parts above made
    local on=(dataset=fashion_mnist model.width=32)
    local some="random herding dm datadam mtt ftd cda rded"
    evaluate() {
        echo "== evaluate $*"
        dd-bench evaluate -m "${common[@]}" "${on[@]}" "$@" || failed=1
    }
    evaluate set="$(sets "$some" 1)" protocol=mtt-1000 evaluator=ddranking,robustness,privacy
    evaluate set="$(sets "$some" 1)" protocol=mtt-1000 evaluator=cross_arch evaluator.num_networks=3
    evaluate set="$(sets "$some" 10)" protocol=dsa-1000 protocol.recipe.epochs=301 'protocol.recipe.milestones=[152]' \
        evaluator=continual evaluator.num_networks=1 evaluator.steps=2,5
    evaluate set="$(sets "$some" 10)" protocol=nas-200 dataset.val_fraction=0.1 evaluator=nas evaluator.sample=36 \
        evaluator.whole_epochs=2 evaluator.space.width=[8,16,32] evaluator.space.depth=[1,2,3]
}

graphs() {
    local gnn=gcn,gat,gin,sage name rate size
    for name in MUTAG NCI1 PROTEINS ogbg_molbace ogbg_molbbbp; do
        local data=(dataset=tu dataset.name="$name")
        case $name in ogbg_*) data=(dataset=ogb_mol dataset.name="$name") ;; esac
        sweep method=mirage,mirage_released,herding_graphs,kcenter_graphs,kmeans_graphs,full "${data[@]}" model=$gnn
        sweep method=random num_sets=10 evaluator.num_networks=1 "${data[@]}" model=$gnn
        size=$(stored_bytes "$(ls -td "$out"/sets/mirage-"$name"-ipc10-* | head -1)")
        sweep method=random_graphs method.budget=bytes method.amount="$size" num_sets=10 evaluator.num_networks=1 \
            "${data[@]}" model=$gnn
        case $name in MUTAG) rate=0.1 ;; ogbg_molbbbp) rate=2 ;; ogbg_molbace) rate=0.01 ;; *) rate=1 ;; esac
        dd-bench run "${common[@]:0:2}" method=doscond method.lr_edges=$rate "${data[@]}" model=gcn || failed=1
        dd-bench evaluate -m "${common[@]}" "${data[@]}" model=gat,gin,sage \
            set="$(ls -td "$out"/sets/doscond-"$name"-ipc10-* | head -1)" || failed=1
    done
    sweep experiment=nci1_mirage,molbace_mirage,molbbbp_mirage,imdb_binary_mirage # thresholds of the released code
}

for part in $parts; do
    declare -F "$part" >/dev/null || { echo "there is no part $part" >&2; exit 2; }
done
for part in $parts; do "$part"; done
mapfile -t records < <(grep -lE '"status": "(done|diverged)"' "$out"/records/*.json) # a divergence is a result
dd-bench leaderboard add "${records[@]}" --entries "$out/entries" --sets "$out/sets" --no-baseline || failed=1
dd-bench leaderboard build --entries "$out/entries" --out "$out/tables" || failed=1
dd-bench leaderboard build --site --entries "$out/entries" --sets "$out/sets" --out "$out/site" || failed=1
dd-bench progress "$out" | tail -40
exit $failed
