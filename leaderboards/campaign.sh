#!/usr/bin/env bash
# Measure boards like the committed ones from scratch, on two cores in a few nights.
#
#     bash leaderboards/campaign.sh OUT [PART ...]
#
# Default parts: selection, matching, trajectories, labels, uses, graphs. By the costs in their experiment files they take
# about 1, 2, 7, 9, 6 and 7 hours on two cores; they have not been run in one go yet. Optional parts: digits (89 minutes
# without the trajectories, on two cores shared with other work), fifty (50 images per class for the methods that take a
# quarter of an hour for ten; a night or more, not timed), uncut (the papers' iterations and real batches at width 32; not
# timed) and mirage_legacy (Mirage's own evaluation of its graphs, and with NCI1 of random graphs and DosCond, whose set is
# from part graphs; not timed). There are also parts for single claims of papers, whose costs are estimated for one core
# from those of the experiments: datadam (half an hour; IPC 50 and DM not timed), ast_legacy, cda_convergence and
# nas_learned_lr (not timed), infer (9 hours), label_bits (8 hours), bits (a night, not timed), drift (3 hours), ast_parts
# (3 hours), shifts (4 hours), contents (4 hours), equal_compute (three times the seconds of the sets that it compares, not
# timed), linear_probe (2 hours, not timed), coresets (10 hours: all coresets on digits and Fashion-MNIST at 1, 10 and 50
# images per class), nodes (an hour, not timed: Cora and Citeseer) and recovery (15 hours: all methods that recover images
# from teachers, with their ablations, on both).
#
# A restarted script continues where it was stopped. A failed job does not stop the others and is listed at the end.
# `dd-bench progress OUT` shows the progress. The last step adds the records to OUT/entries and writes OUT/tables and
# OUT/site.
#
# The committed entries of digits are from this script. Those of Fashion-MNIST and of graphs were measured with the same
# commands, run one by one, and differ as follows. KD tracks at IPC 10 have three networks per entry instead of five.
# Some entries are variants for an ablation (weight of the statistics, parts of AST) or have twenty networks (IPC 1 under
# mtt-1000). At 50 images per class there are only selection methods, DM, DataDAM and five random draws with one network
# each, instead of ten draws with two, and one set of k-means instead of five. No entry is from `fifty`.
#
# Fashion-MNIST must be installed by the Debian package dataset-fashion-mnist, the graphs must be in data/, and the
# files of Planetoid in data/nodes/.
set -uo pipefail
out=${1:?bash leaderboards/campaign.sh OUT [PART ...]}
shift
parts=${*:-selection matching trajectories labels uses graphs}
common=(out="$out" runtime=one_thread hydra/launcher=cores)
failed=0

sweep() { # dd-bench run with one job per core
    echo "== $*"
    dd-bench run -m --only-missing "${common[@]}" "$@" || failed=1
}

sets() { # sets METHODS IPC: the newest set folder of each method, separated by commas
    for method in $1; do ls -td "$out"/sets/"$method"-fashion_mnist-ipc"$2"-* 2>/dev/null | head -1; done | paste -sd, -
}

stored_bytes() { # stored_bytes FOLDER: the bytes of the set in a folder, with its labels
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

recovery() { # all methods that recover images from teachers, with stored labels and hard labels, and their ablations
    local data stored=protocol=sre2l-kd-400-replay both=protocol=sre2l-kd-400-replay,sre2l-kd-400-hard
    local ten=ipc=10 networks=evaluator.num_networks=5
    local controls=fashion_kd_random,fashion_kd_ranked,fashion_kd_rded,fashion_kd_sre2l,fashion_kd_cda
    local one=fashion_kd_delt,fashion_kd_fadrm,fashion_kd_wmdd,fashion_kd_lpld,fashion_kd_sre2l_pp
    local several=fashion_kd_fadrm_plus,fashion_kd_cv_dd
    for data in digits fashion_mnist; do
        sweep experiment=$controls,$one,$several dataset=$data ipc=1,10 $both $networks
        sweep experiment=fashion_kd_ranked dataset=$data ipc=1,10 method.rank.pick=medium,hard $both $networks
        # the weight of the statistics with which SRe2L was measured, chosen there on test data; the papers have 0.01
        sweep experiment=$one,$several dataset=$data $ten method.statistics=1.0 hyperparameters=test $both $networks
        # ablations: without rounds, without the residual connection or without optimisation, without barycentres, and
        # with the statistics of all images together
        sweep experiment=fashion_kd_delt dataset=$data $ten method.rounds=1 $both $networks
        sweep experiment=fashion_kd_fadrm dataset=$data $ten method.residual.alpha=0.0,1.0 $both $networks
        sweep experiment=fashion_kd_fadrm dataset=$data $ten method.lr_img=0.0 $both $networks
        sweep experiment=fashion_kd_fadrm,fashion_kd_sre2l_pp dataset=$data $ten method.views.smallest=0.5 $both $networks
        sweep experiment=fashion_kd_wmdd dataset=$data $ten method.barycenter=null $both $networks
        sweep experiment=fashion_kd_wmdd,fashion_kd_lpld dataset=$data $ten method.statistics_of=all $both $networks
        # CIM under its own protocol, shortened, with the same real images without a mosaic, and RDED's mosaics
        sweep experiment=fashion_kd_cim,fashion_kd_ranked,fashion_kd_rded dataset=$data ipc=1,10 \
            protocol=cim-1000,cim-1000-hard protocol.recipe.epochs=300 'protocol.recipe.milestones=[200,250]' $networks
        # labels and batches of CV-DD's evaluation, one by one
        sweep experiment=fashion_kd_random,fashion_kd_sre2l_pp,fashion_kd_cv_dd dataset=$data $ten $stored \
            protocol.labels.teacher_mode=eval,train protocol.recipe.batch_size=16,128 $networks
    done
}

datadam() { # the released code and DataDAM's own evaluation
    sweep experiment=fashion_w32_datadam method=datadam,datadam_released ipc=1,10,50 protocol=dc-300,datadam-1800
    sweep experiment=fashion_w32_dm ipc=1,10,50 protocol=datadam-1800
    # the iterations and the real batch of the paper, 84 minutes at ipc 1
    sweep method=datadam dataset=fashion_mnist model.width=32 ipc=1 protocol=dc-300,datadam-1800
}

ast_legacy() { # AST's own evaluation, which selects on test data, of its sets and of MTT's
    sweep experiment=fashion_w32_ast_ipc1,fashion_w32_ast_ipc10,fashion_w32_mtt_ipc1,fashion_w32_mtt_ipc10 \
        protocol=ast-legacy
}

cda_convergence() { # losses of CDA and SRe2L over the iterations of recovery
    python benchmarks/curriculum_convergence.py --cache "$out/cache" || failed=1
}

nas_learned_lr() { # architecture search with the sets of the trajectory methods, trained at the rates distilled with them
    dd-bench evaluate -m --only-missing "${common[@]}" dataset=fashion_mnist dataset.val_fraction=0.1 model.width=32 \
        set="$(sets "mtt ftd" 10)" protocol=nas-200 +protocol.learned_lr=true evaluator=nas evaluator.sample=30 \
        evaluator.whole_epochs=2 evaluator.space.width=[8,16] evaluator.space.depth=[1,2,3] || failed=1
}

infer() { # INFER's own protocol with equal steps and equal batches, and its compensators on other sets (plug-in)
    local others=fashion_kd_random,fashion_kd_rded,fashion_kd_sre2l own=infer-400,infer-400-hard
    sweep experiment=fashion_kd_infer ipc=10 protocol=$own evaluator.equal=steps,batches
    # With three teachers, seven images per class and their compensators are ten images per class.
    sweep experiment=$others ipc=7,10 protocol=$own
    sweep experiment=fashion_kd_infer ipc=10 base="$(sets "random rded sre2l" 7)" protocol=$own evaluator.equal=batches
}

coresets() { # every pick and every beta is a row; nothing is chosen
    local picks=method.pick=easy,medium,hard betas=method.beta=0.0,0.3,0.6,0.9 digits="dataset=digits model.width=32"
    local scores=el2n,grand,forgetting,aum,least_confidence,margin,entropy,d2 experiment=fashion_w32_coresets ipc
    for ipc in 1 10 50; do
        sweep $digits protocol=dc-300 ipc=$ipc method=$scores $picks
        sweep $digits protocol=dc-300 ipc=$ipc method=ccs $betas
        sweep $digits protocol=dc-300 ipc=$ipc method=easiest,moderate
        sweep $digits protocol=dc-300 ipc=$ipc method=kmeans_untrained method.features=pixels,random
        sweep $digits protocol=dc-300 ipc=$ipc method=cad_prune $picks
        sweep experiment=$experiment ipc=$ipc method=$scores $picks
        sweep experiment=$experiment ipc=$ipc method=ccs $betas
        sweep experiment=$experiment ipc=$ipc method=easiest
        sweep experiment=fashion_w32_moderate ipc=$ipc
        sweep experiment=fashion_w32_kmeans_untrained ipc=$ipc method.features=pixels,random
        sweep experiment=fashion_w32_cad_prune ipc=$ipc $picks
    done
}

label_bits() { # accuracy against bits of labels: every kind of labels of the same sets, on digits and Fashion-MNIST
    local data ipc four=fashion_labels_random,fashion_labels_kmeans,fashion_labels_rded,fashion_labels_sre2l
    label_kinds() { # label_kinds OVERRIDES: all kinds of labels of teachers that were trained to the end
        local l=protocol.labels
        sweep "$@" $l.kind=hard,static,online
        sweep "$@" $l.kind=static $l.label_bits=8,4,2
        sweep "$@" $l.pool=1,4,16,64,400
        sweep "$@" $l.label_bits=8,4,2
        sweep "$@" $l.top=1,3
        sweep "$@" $l.top=3 $l.rest=minimum,zero
        sweep "$@" $l.pool=16,64 $l.top=3 $l.rest=minimum $l.label_bits=4
        sweep "$@" $l.pool=40 $l.pool_unit=batch
        sweep "$@" $l.teacher_mode=train
        sweep "$@" protocol=labels-400-lpqld,labels-400-hald
        sweep "$@" protocol=labels-400-gift $l.kind=static,replay,online
    }
    early_stops() { # early_stops OVERRIDES: one label per image, by teachers that were stopped early, and by trained ones
        local epoch static=(protocol.labels.kind=static protocol.labels.temperature=1.0,30.0)
        sweep "$@" "${static[@]}"
        for epoch in 1 2 4; do
            sweep "$@" "${static[@]}" teachers.{convnet_w32_bn,convnet_d2_w32_bn,convnet_max_w32_bn}.epoch=$epoch
        done
    }
    for data in digits fashion_mnist; do
        for ipc in 10 1; do
            label_kinds experiment=$four dataset=$data ipc=$ipc
            early_stops experiment=fashion_labels_random,fashion_labels_kmeans dataset=$data ipc=$ipc
        done
    done
}

bits() { # fewer bits per value of the sets from the parts above, k-means with more images, and QuADD around DM
    local data on set
    for data in digits fashion_mnist; do
        on=(dataset=$data model.width=32 protocol=dc-300 evaluator.num_networks=10)
        sweep experiment=fashion_w32_kmeans dataset=$data ipc=2,4,8,16,20,40 num_sets=1 method.feature_network=shared \
            evaluator.num_networks=10
        sweep experiment=fashion_w32_dm_bits dataset=$data ipc=1,10 method.bits=4,3,2 evaluator.num_networks=10
        for set in "$out"/sets/{dm,mtt,kmeans}-$data-ipc{1,10,20,40}-????????????????; do
            [ -d "$set" ] || continue
            dd-bench quantise "$set" bits=8,6,4,3,2,1 per=set,image,patch out="$out" || failed=1
            dd-bench evaluate -m --only-missing "${common[@]}" "${on[@]}" \
                set="$(ls -d "$set" "$set"-*bit-* 2>/dev/null | paste -sd, -)" || failed=1
        done
    done
}

printed() { # printed COMMAND OVERRIDES: the last folder that `dd-bench prepare` or `dd-bench distill` prints
    local text="$(dd-bench "$1" "${common[@]:0:2}" "${@:2}" 2>&1)"
    sed -nE 's/.*(synthetic set|prepared): (.*[^)])( \([0-9]+ s\))?$/\2/p' <<<"$text" | tail -1
}

drift() { # what lets FTD's students drift less, its flat experts or the average of the images: four sets on equal experts
    local on=(method.experts.count=6 method.experts.precision=fp32) method ema name experts pairs=()
    sweep experiment=fashion_w32_mtt_ipc10,fashion_w32_ftd_ipc10 method.ema=0.0,0.99 "${on[@]}"
    for method in mtt ftd; do
        experts=$(printed prepare experiment=fashion_w32_${method}_ipc10 "${on[@]}")
        for ema in 0.0 0.99; do
            case $method$ema in mtt0.0) name=mtt ;; mtt0.99) name="mtt with ema" ;; ftd0.0) name="ftd without ema" ;;
                *) name=ftd ;; esac
            pairs+=("$name=$experts:$(printed distill experiment=fashion_w32_${method}_ipc10 method.ema=$ema "${on[@]}")")
        done
    done
    python benchmarks/trajectories.py "${pairs[@]}" --steps 20 --out benchmarks/results/drift_parts.json \
        --less "mtt with ema:mtt" "ftd:ftd without ema" "ftd without ema:mtt" "ftd:mtt with ema" || failed=1
}

ast_parts() { # AST without its k-means start, its gradient penalty and its clipped loss; the other parts have entries
    local both=fashion_w32_ast_ipc1,fashion_w32_ast_ipc10
    sweep experiment=$both method.init=clusters,real
    sweep experiment=$both method.experts.gradient_penalty.weight=0.0
    sweep experiment=$both 'method.experts.loss_scale=[]'
}

digits() { # the experiments of Fashion-MNIST on images of 8x8 pixels
    sweep method=random num_sets=10 evaluator.num_networks=1 dataset=digits model.width=32 ipc=1,10,50 \
        protocol=dc-300,mtt-1000
    sweep method=herding,kcenter,kmeans dataset=digits model.width=32 ipc=1,10,50 protocol=dc-300
    sweep method=herding,kcenter,kmeans dataset=digits model.width=32 ipc=1,10 protocol=mtt-1000
    sweep 'experiment=glob([fashion_w32_dc,fashion_w32_dsa,fashion_w32_ncfm])' dataset=digits ipc=1,10
    sweep experiment=fashion_w32_dm,fashion_w32_datadam dataset=digits ipc=1,10,50
    sweep experiment=fashion_w32_dm,fashion_w32_datadam dataset=digits ipc=1,10 protocol=mtt-1000
    # An epoch has only six steps, so a student is matched with forty epochs, which move the network as far as two epochs
    # on Fashion-MNIST. The learning rate of the images is smaller because 64 pixels have larger gradients. With eight
    # epochs (also with later starts) and the learning rates of Fashion-MNIST, the set of MTT reached 26 %. AST is left
    # out: its intermediate losses are not meant for so many epochs.
    sweep 'experiment=glob(fashion_w32_*_ipc1,exclude=*ast*)' dataset=digits \
        method.experts.recipe.epochs=48 method.expert_epochs=40 method.window.stop=8 method.lr_img=300
    sweep experiment=$kd dataset=digits ipc=1,10 protocol=$kinds evaluator.num_networks=5
}

fifty() {
    sweep 'experiment=glob([fashion_w32_dc,fashion_w32_dsa,fashion_w32_ncfm])' ipc=50
    sweep 'experiment=glob(fashion_w32_*_ipc10)' ipc=50
    sweep experiment=$kd ipc=50 protocol=$kinds evaluator.num_networks=5
}

uncut() { # the papers' iterations and real batches; first one set per cell, then three
    local data experts=(method.experts.count=20 method.experts.recipe.epochs=22 method.experts.init_epoch=21)
    local on=(model.width=32 protocol=dc-300)
    for data in digits fashion_mnist; do
        sweep method=dm,datadam,dc dataset="$data" "${on[@]}" ipc=1,10
        sweep method=full dataset="$data" "${on[@]}"
    done
    for data in digits fashion_mnist; do
        sweep method=mtt,ftd,tesla,datm,ast dataset="$data" model.width=32 protocol=mtt-1000 ipc=1,10 "${experts[@]}"
        sweep method=dsa dataset="$data" "${on[@]}" ipc=1,10
        sweep method=dm,datadam,dc,dsa dataset="$data" "${on[@]}" ipc=50
    done
    for data in digits fashion_mnist; do # the same sets under the protocols with augmentation, then two more sets
        sweep method=dm,datadam,dc,dsa dataset="$data" model.width=32 protocol=dsa-1000,mtt-1000 ipc=1,10,50
        sweep method=dm,datadam,dc,dsa dataset="$data" "${on[@]}" ipc=1,10 num_sets=3
        sweep method=ncfm dataset="$data" "${on[@]}" ipc=1,10
    done
    sweep method=random,herding,dc,dsa,dm dataset=fashion_mnist protocol=dc-300 ipc=1 # width 128, as papers print it
    sweep method=dm dataset=fashion_mnist protocol=dc-300 ipc=10
}

uses() { # further evaluators on the sets from the parts above
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

shifts() { # long tail, wrong labels and biased colours, with hard labels: random images, k-means, DM, DataDAM and RDED
    local data tail whole shift on
    for data in digits fashion_mnist; do
        tail=100 whole=full-30
        [ "$data" = digits ] && tail=10 whole=dc-300 # 13 images of the last class; full-30 has a hundred steps only
        for shift in imbalance=$tail label_noise=0.2 colour_bias=0.95; do
            on=(dataset="$data" dataset.$shift evaluator=groups ipc=10)
            sweep experiment=fashion_w32_random,fashion_w32_kmeans,fashion_w32_dm,fashion_w32_datadam "${on[@]}"
            sweep method=rded teacher=convnet_w32_bn model.width=32 protocol=dc-300 "${on[@]}"
            sweep method=full model.width=32 protocol=$whole "${on[@]}"
        done
    done
}

contents() { # what the sets from the parts above contain, from which IPC on real images are enough, and AutoAttack
    local some="random herding kmeans dm datadam" on=(dataset=fashion_mnist model.width=32 protocol=dc-300)
    local evaluate=(dd-bench evaluate -m "${common[@]}" "${on[@]}")
    "${evaluate[@]}" set="$(sets "$some" 1),$(sets "$some" 10)" evaluator=diagnostics || failed=1
    "${evaluate[@]}" set="$(sets "$some" 10)" evaluator=prefixes evaluator.features.epochs=6 \
        'evaluator.features.milestones=[4,5]' || failed=1
    "${evaluate[@]}" set="$(sets "$some" 10)" evaluator=privacy || failed=1
    "${evaluate[@]}" set="$(sets "$some" 10)" evaluator=robustness evaluator.autoattack=true evaluator.images=100 \
        evaluator.num_networks=2 || failed=1
}

equal_compute() { # sets from the parts above against real images with equal steps, computation and seconds
    local data ipc sets
    for data in digits fashion_mnist; do
        for ipc in 1 10; do # each set is trained for its own seconds, times three networks
            sets=$(ls -d "$out"/sets/{kmeans,dm,datadam,dc}-$data-ipc$ipc-???????????????? 2>/dev/null | paste -sd, -)
            [ -z "$sets" ] || dd-bench evaluate -m --only-missing "${common[@]}" dataset=$data model.width=32 protocol=dc-300 \
                evaluator=equal_compute evaluator.num_networks=3 set="$sets" || failed=1
        done
    done
}

linear_probe() { # sets for linear heads on backbones that have not seen the classes; every set on three backbones
    local data classes ipc=1 steps set backbones=backbone_w32,backbone_d2_w32,backbone_max_w32 on
    for data in digits fashion_mnist; do
        for classes in '[0,1,2,3,4]' '[5,6,7,8,9]'; do
            on=(dataset=$data dataset.classes="$classes" ipc=$ipc)
            steps=()
            [ $data = fashion_mnist ] && steps=(method.iterations=1000 method.level_every=50 hyperparameters=untuned)
            sweep method=random num_sets=3 "${on[@]}" teacher=$backbones protocol=ridge,probe-1000-views
            sweep method=full "${on[@]}" teacher=$backbones protocol=ridge
            sweep method=centroid "${on[@]}" teacher=$backbones protocol=ridge,probe-1000-views
            sweep method=lgm num_sets=3 "${on[@]}" teacher=backbone_w32 protocol=ridge "${steps[@]}"
            set=$(ls -td "$out"/sets/lgm-$data-classes"${classes:1:1}-${classes: -2:1}"-ipc$ipc-* 2>/dev/null | head -1)
            [ -z "$set" ] || sweep method=neighbours base="$set" "${on[@]}" teacher=backbone_w32 protocol=ridge,probe-1000-views
            sweep method=lgm,clp_dd num_sets=3 "${on[@]}" teacher=$backbones protocol=ridge,probe-1000-views "${steps[@]}"
            [ $data = digits ] && sweep method=lgm "${on[@]}" teacher=backbone_w32 protocol=ridge hyperparameters=untuned \
                method.views.noise=0 'method.views.scale=null,[0.5,1.0]' # views that keep most of 8x8 pixels
            for set in "$out"/sets/{lgm,clp_dd,centroid}-$data-classes"${classes:1:1}-${classes: -2:1}"-ipc$ipc-????????????????; do
                [ -d "$set" ] || continue
                dd-bench evaluate -m --only-missing "${common[@]}" "${on[@]:0:2}" set="$set" teacher=$backbones \
                    protocol=ridge,probe-1000-views || failed=1
            done
        done
    done
}

nodes() { # selections of real nodes, k-means, and learned sets of Cora and Citeseer
    local data ipc search
    for data in cora citeseer; do
        on=(dataset.name=$data dataset.root=data/nodes)
        sweep experiment=cora_random,cora_kmeans,cora_herding,cora_kcenter ipc=5,10,20 "${on[@]}"
        sweep experiment=cora_gcdm,cora_gcondx,cora_gcondx_graphslim,cora_doscondx,cora_gcond ipc=5,10 "${on[@]}"
        sweep experiment=cora_sfgc,cora_geom ipc=5 "${on[@]}"
        sweep experiment=cora_coarsening,cora_gc_sntk ipc=5,10 "${on[@]}"
        sweep experiment=cora_bonsai method.amount=2000,5000,20000 "${on[@]}"
        # as many bytes of random nodes, also with Bonsai's features only, and nodes with propagated features
        sweep experiment=cora_random method=random_nodes ipc=20 method.bytes=2000 method.features=all,tree "${on[@]}"
        sweep experiment=cora_random method=random_nodes ipc=5,10 method.hops=2 "${on[@]}"
        sweep experiment=cora_random ipc=5 model.hidden=64 "${on[@]}" # the width at which SFGC and GEOM were measured
        sweep experiment=cora_random method=full ipc=1 num_sets=1 "${on[@]}"
        for ipc in 5 10; do # GCondX with a number of iterations that is chosen on the validation nodes
            search="$out/tune/gcondx-$data-$ipc"
            dd-bench tune --name "gcondx-$data-$ipc" out="$out" runtime=one_thread experiment=cora_gcondx ipc=$ipc "${on[@]}" \
                method.iterations=2,5,10,20,50,100,200 || failed=1
            [ ! -f "$search/tuning.json" ] ||
                sweep experiment=cora_gcondx ipc=$ipc "${on[@]}" tuning="$search/tuning.json"
        done
    done
    # the best step on the validation nodes, as GCond reports it; `dd-bench import` adds the authors' own graphs
    on=(dataset.name=cora dataset.root=data/nodes protocol=node-600-legacy)
    sweep experiment=cora_random,cora_kmeans ipc=5,10,20 "${on[@]}"
    sweep experiment=cora_random method=full ipc=1 num_sets=1 "${on[@]}"
    sweep experiment=cora_bonsai_half_percent dataset.root=data/nodes
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
    sweep experiment=nci1_mirage,molbace_mirage,molbbbp_mirage,imdb_binary_mirage # the thresholds of the released code
}

mirage_legacy() { # Mirage's own evaluation on all collections, and the last step of graph-500 with the same sets
    local hiv=dataset.name=ogbg_molhiv_rebuilt # a folder with smiles.csv, train.txt, valid.txt and test.txt
    sweep experiment=nci1_mirage_legacy,molbace_mirage_legacy,molbbbp_mirage_legacy,imdb_binary_mirage_legacy \
        model=gcn,gat,gin
    sweep experiment=molhiv_mirage_legacy_gcn,molhiv_mirage_legacy_gat,molhiv_mirage_legacy_gin $hiv
    sweep experiment=nci1_mirage,molbace_mirage,molbbbp_mirage,imdb_binary_mirage model=gcn,gat,gin
    sweep experiment=molhiv_mirage $hiv model=gcn,gat,gin
    # NCI1: random graphs of as many bytes as Mirage's set, and DosCond's set of part graphs
    local nci1=(dataset=tu dataset.name=NCI1 protocol=mirage-legacy evaluator.num_networks=10)
    nci1+=(model.layers=2 model.hidden=128 model.dropout=0.5) # as in experiment nci1_mirage
    local size=$(stored_bytes "$(ls -td "$out"/sets/mirage_released-NCI1-ipc4-* | head -1)")
    sweep method=random_graphs method.budget=bytes method.amount="$size" ipc=4 num_sets=3 model=gcn,gat,gin "${nci1[@]}"
    local set=$(ls -td "$out"/sets/doscond-NCI1-ipc10-* 2>/dev/null | head -1)
    [ -z "$set" ] || dd-bench evaluate -m --only-missing "${common[@]}" set="$set" model=gcn,gat,gin "${nci1[@]}" || failed=1
}

for part in $parts; do
    declare -F "$part" >/dev/null || { echo "unknown part $part" >&2; exit 2; }
done
for part in $parts; do "$part"; done
mapfile -t records < <(grep -lE '"status": "(done|diverged)"' "$out"/records/*.json) # a diverged run is a result too
dd-bench leaderboard add "${records[@]}" --entries "$out/entries" --sets "$out/sets" --no-baseline || failed=1
dd-bench leaderboard build --entries "$out/entries" --out "$out/tables" || failed=1
dd-bench leaderboard build --site --entries "$out/entries" --sets "$out/sets" --out "$out/site" || failed=1
dd-bench progress "$out" | tail -40
exit $failed
