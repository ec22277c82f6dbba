import json

import pytest
import yaml

from gossamer.quantization import E2M1, HBFP, MX, NVFP4, Codebook, Int
from gossamer.recipe import PRESETS, Recipe, Rule
from gossamer.sparsity import NM, Block, Channel, Unstructured

PATHS = [
    "embedding.kernel",
    "layers.0.attention.q_proj.kernel",
    "layers.0.attention.q_proj.bias",
    "layers.0.mlp_norm.scale",
    "layers.11.mlp.down_proj.kernel",
    "norm.scale",
    "output.kernel",
]
BLOCKS = [PATHS[1], PATHS[4]]
ENDS = [PATHS[0], PATHS[6]]
EVERYTHING = Recipe(
    name="all-sorts",
    rules=(
        Rule(path="a", pattern=NM(2, 4), weights=Int(4, 64, "bfloat16"), activations=Int(8)),
        Rule(path="b", pattern=Block(0.5, (16, 1))),
        Rule(path="c", pattern=Unstructured(0.75), weights=Int(3, symmetric=False)),
        Rule(path="d", pattern=Channel(0.25), weights=Int(2, 32, "e8m0")),
        Rule(path="e", weights=Int(8, scale="e4m3")),
        Rule(path="f"),
    ),
)
INT4 = Int(4, 64, "bfloat16")
INT2 = Int(2, 64, "bfloat16")
WHAT_THE_NAME_SAYS = {  # pattern and format of the blocks, format of embedding and output
    "int8": (None, Int(8), Int(8)),
    "int4": (None, INT4, Int(8)),
    "int2": (None, INT2, Int(8)),
    "2:4": (NM(2, 4), None, None),
    "2:4-int8": (NM(2, 4), Int(8), Int(8)),
    "2:4-int4": (NM(2, 4), INT4, Int(8)),
    "4:8": (NM(4, 8), None, None),
    "4:8-int4": (NM(4, 8), INT4, Int(8)),
    "1:4-int4": (NM(1, 4), INT4, Int(8)),
    "1:4-int2": (NM(1, 4), INT2, Int(8)),
    "50%": (Unstructured(0.5), None, None),
    "mxfp8": (None, MX("e4m3"), Int(8)),
    "mxfp6": (None, MX("e2m3"), Int(8)),
    "mxfp4": (None, MX("e2m1"), Int(8)),
    "nvfp4": (None, NVFP4(), Int(8)),
    "hbfp8": (None, HBFP(8), Int(8)),
    "2:4-mxfp4": (NM(2, 4), MX("e2m1"), Int(8)),
    "w8a8": (None, Int(8), Int(8)),
}


def rule(**fields):
    return {"rules": [{"path": ".*", **fields}]}


REFUSED = {  # data and what the message says
    "unknown_field": (rule(sparsity=0.5), r"recipe.rules\[0\] has an unknown field 'sparsity'"),
    "unknown_field_of_the_recipe": (rule() | {"rule": 1}, r"recipe has an unknown field 'rule'"),
    "unknown_field_of_a_format": (
        rule(weights={"type": "Int", "bits": 4, "groups": 64}),
        r"recipe.rules\[0\].weights has an unknown field 'groups'; it takes \['bits', 'group'",
    ),
    "unknown_element": (
        rule(weights={"type": "MX", "element": "e8m0"}),
        r"recipe.rules\[0\].weights.element needs one of \['e4m3', .*'int8'\], got 'e8m0'",
    ),
    "asymmetric_activations": (
        rule(
            weights={"type": "Int", "bits": 8},
            activations={"type": "Int", "bits": 8, "symmetric": False},
        ),
        r"The rule '\.\*': Activations are quantized symmetrically",
    ),
    "activations_in_other_blocks": (
        rule(
            weights={"type": "MX", "element": "e2m1"},
            activations={"type": "HBFP", "bits": 8, "group": 48},
        ),
        r"groups of 48 \(HBFP8, blocks of 48\) do not line up with weights in groups of 32",
    ),
    "missing_path": ({"rules": [{}]}, r"recipe.rules\[0\] lacks 'path'"),
    "missing_rules": ({"name": "x"}, "recipe lacks 'rules'"),
    "missing_bits": (rule(weights={"type": "Int"}), r"weights lacks 'bits'"),
    "unknown_type": (
        rule(pattern={"type": "NMM", "n": 2, "m": 4}),
        r"pattern needs a mapping with a type in \['NM', 'Unstructured', 'Block', 'Channel'\]",
    ),
    "type_that_is_no_name": (rule(pattern={"type": ["NM"]}), "pattern needs a mapping with a type"),
    "format_as_pattern": (rule(pattern={"type": "Int", "bits": 4}), "pattern needs a mapping"),
    "pattern_as_format": (rule(weights={"type": "NM", "n": 2, "m": 4}), "weights needs a mapping"),
    "text_as_pattern": (rule(pattern="2:4"), "pattern needs a mapping .* got '2:4'"),
    "text_as_number": (rule(weights={"type": "Int", "bits": "4"}), "bits needs int, got '4'"),
    "fraction_as_whole": (rule(weights={"type": "Int", "bits": 4.0}), "bits needs int, got 4.0"),
    "truth_as_number": (rule(weights={"type": "Int", "bits": True}), "bits needs int, got True"),
    "number_as_truth": (
        rule(weights={"type": "Int", "bits": 4, "symmetric": 1}),
        "symmetric needs bool, got 1",
    ),
    "number_as_path": ({"rules": [{"path": 5}]}, r"path needs str, got 5"),
    "no_name": (rule() | {"name": None}, "name needs str, got None"),
    "bits_out_of_range": (rule(weights={"type": "Int", "bits": 9}), "2 <= bits <= 8, got bits=9"),
    "group_of_nothing": (
        rule(weights={"type": "Int", "bits": 4, "group": 0}),
        "at least 1 element, got group=0",
    ),
    "unknown_scale": (
        rule(weights={"type": "Int", "bits": 4, "scale": "fp16"}),
        r"scale needs one of \['float32', 'bfloat16', 'e8m0', 'e4m3'\], got 'fp16'",
    ),
    "pattern_out_of_range": (
        rule(pattern={"type": "NM", "n": 5, "m": 4}),
        "1 <= n <= m, got n=5, m=4",
    ),
    "fractions_in_a_block": (
        rule(pattern={"type": "Block", "sparsity": 0.5, "shape": [2.5, 1]}),
        r"shape needs a list of 2 int, got \[2.5, 1\]",
    ),
    "block_of_one_length": (
        rule(pattern={"type": "Block", "sparsity": 0.5, "shape": 16}),
        "shape needs a list of 2 int, got 16",
    ),
    "path_that_is_no_expression": (
        {"rules": [{"path": "layers.("}]},
        r"path 'layers.\(' is no regular expression",
    ),
    "activations_alone": (
        rule(activations={"type": "Int", "bits": 8}),
        "quantizes activations but not weights",
    ),
    "rules_that_are_no_list": ({"rules": {"path": "a"}}, "rules needs a list of rules"),
    "rule_that_is_no_mapping": ({"rules": ["a"]}, r"rules\[0\] needs a mapping, got 'a'"),
    "no_rules": ({"rules": []}, "at least one rule"),
    "no_mapping": ([], r"recipe needs a mapping, got \[\]"),
    "empty": (None, "recipe needs a mapping, got None"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_data_that_is_no_recipe_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        Recipe.from_dict(data)


def test_all_faults_are_reported_together():
    data = {
        "nme": "x",
        "rules": [{"path": "a", "weights": {"type": "Int", "bits": 1}}, {"pattern": "2:4"}],
    }
    with pytest.raises(ValueError, match=r"unknown field 'nme'.*bits=1.*lacks 'path'.*'2:4'"):
        Recipe.from_dict(data)


@pytest.mark.parametrize("recipe", [EVERYTHING, *PRESETS.values()], ids=lambda recipe: recipe.name)
def test_recipe_comes_back_equal_from_plain_data_in_json_and_yaml(recipe, tmp_path):
    data = recipe.to_dict()
    assert Recipe.from_dict(json.loads(json.dumps(data))) == recipe
    for name, text in {"r.yaml": yaml.safe_dump(data), "r.json": json.dumps(data)}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert Recipe.load(tmp_path / name) == recipe


def test_a_recipe_file_as_a_user_writes_it(tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text(
        r"""
        rules:
          - path: layers\..*\.kernel
            pattern: {type: NM, n: 1, m: 4}
            weights: {type: Int, bits: 2, group: 64, scale: bfloat16}
          - path: embedding\.kernel
            weights: {type: Int, bits: 8}
            activations: null
        """
    )
    assert Recipe.load(str(file)) == Recipe(
        name="small",  # the file's name where it gives none
        rules=(
            Rule(path=r"layers\..*\.kernel", pattern=NM(1, 4), weights=INT2),
            Rule(path=r"embedding\.kernel", weights=Int(8)),
        ),
    )


def test_plain_data_leaves_defaults_out():
    recipe = Recipe(rules=(Rule(path="a", weights=Int(4, group=32)),))
    assert recipe.to_dict() == {
        "name": "custom",
        "rules": [{"path": "a", "weights": {"type": "Int", "bits": 4, "group": 32}}],
    }


def test_a_codebook_survives_plain_data_and_says_what_it_needs():
    recipe = Recipe(rules=(Rule(path="a", weights=Codebook(E2M1, group=32)),))
    plain = recipe.to_dict()
    assert plain["rules"][0]["weights"] == {"type": "Codebook", "values": list(E2M1), "group": 32}
    assert Recipe.from_dict(plain) == recipe
    plain["rules"][0]["weights"]["values"] = [0, 1.5]
    with pytest.raises(ValueError, match=r"weights.values needs a list of int, got \[0, 1.5\]"):
        Recipe.from_dict(plain)


def test_a_fault_in_a_file_names_the_file(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("rules: [{path: a, prune: 2}]")
    with pytest.raises(ValueError, match=r"bad.yaml: .*unknown field 'prune'"):
        Recipe.load(file)
    file.write_text("rules: [}")
    with pytest.raises(ValueError, match=r"bad.yaml is not valid YAML"):
        Recipe.load(file)
    file.write_bytes(b"\xff\xfe\x00rules")
    with pytest.raises(ValueError, match=r"bad.yaml is not valid YAML"):
        Recipe.load(file)


def test_a_name_that_is_neither_preset_nor_file_lists_the_presets():
    with pytest.raises(ValueError, match=r"'3:4-int5' is neither .* presets: \['int8', 'int4'"):
        Recipe.load("3:4-int5")


def test_load_passes_a_recipe_through_and_knows_presets():
    assert Recipe.load(EVERYTHING) is EVERYTHING
    assert Recipe.load("2:4-int4") is PRESETS["2:4-int4"]


def test_the_first_rule_that_matches_wins():
    first, rest = Rule(path=r"layers\.0\..*kernel", weights=Int(8)), Rule(path=r".*\.kernel")
    rules = Recipe(rules=(first, rest)).match(PATHS)
    assert rules == {PATHS[0]: rest, PATHS[1]: first, PATHS[4]: rest, PATHS[6]: rest}
    assert list(rules) == [PATHS[0], PATHS[1], PATHS[4], PATHS[6]]


def test_a_rule_matches_the_whole_path():
    recipe = Recipe(rules=(Rule(path="embedding"), Rule(path=r"norm\.scale")))
    with pytest.raises(ValueError, match=r"Rules \['embedding'\] of recipe 'custom' match no"):
        recipe.match(PATHS)


def test_a_rule_that_matches_nothing_is_refused_with_examples_of_names():
    recipe = Recipe(name="mine", rules=(Rule(path=".*"), Rule(path="decoder.*")))
    with pytest.raises(
        ValueError, match=r"Rules \['decoder\.\*'\] of recipe 'mine' .*like \['embedding\.kernel'"
    ):
        recipe.match(PATHS)


@pytest.mark.parametrize("weights", [None, Int(4)], ids=["the_same_rule_twice", "another_rule"])
def test_a_rule_whose_weights_all_fall_to_earlier_ones_is_refused(weights):
    rules = (Rule(path=r"layers\..*"), Rule(path=r"layers\..*", weights=weights))
    with pytest.raises(ValueError, match="match no weight that an earlier rule left"):
        Recipe(rules=rules).match(PATHS)
    once = Rule(path=r"layers\..*")
    with pytest.raises(ValueError, match="match no weight that an earlier rule left"):
        Recipe(rules=(once, once)).match(PATHS)


def test_presets_are_the_ones_whose_names_are_explained_here():
    assert list(PRESETS) == list(WHAT_THE_NAME_SAYS)


@pytest.mark.parametrize("name", WHAT_THE_NAME_SAYS)
def test_preset_does_what_its_name_says(name):
    pattern, weights, ends = WHAT_THE_NAME_SAYS[name]
    rules = PRESETS[name].match(PATHS)
    assert PRESETS[name].name == name
    assert [path for path in rules if path in BLOCKS] == BLOCKS
    for path in BLOCKS:
        assert (rules[path].pattern, rules[path].weights) == (pattern, weights)
    assert [path for path in rules if path not in BLOCKS] == ([] if ends is None else ENDS)
    for path in ENDS if ends else []:
        assert (rules[path].pattern, rules[path].weights) == (None, ends)
    activations = Int(8) if name == "w8a8" else None
    assert all(rules[path].activations == activations for path in BLOCKS)
    assert all(rules[path].activations is None for path in ENDS if path in rules)


def test_describe_says_all_parts_of_a_rule():
    assert EVERYTHING.rules[0].describe() == (
        "2:4, int4, groups of 64, bfloat16 scales, activations int8, per channel, float32 scales"
    )
    assert EVERYTHING.rules[2].describe() == (
        "75% unstructured, int3 asymmetric, per channel, float32 scales"
    )
    assert EVERYTHING.rules[-1].describe() == "left alone"
