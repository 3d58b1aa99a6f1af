"""What MODEL may be, and when a model counts as another one."""

import hashlib
import os
import re

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from dlbench.proxy.errors import ModelError
from dlbench.proxy.models import file_digest
from dlbench.proxy.models.external_data import locations
from dlbench.proxy.models.model import ModelFile, find_models, resolve_model


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"graph")
    return ModelFile(path, "m")


def test_a_name_before_the_path(model):
    assert resolve_model(str(model.path)) == model
    assert resolve_model(f"other={model.path}") == ModelFile(model.path, "other")
    with pytest.raises(ModelError, match="no such file"):
        resolve_model("other=missing.onnx")


def test_a_repository_holds_files_and_versions(tmp_path, model):
    for version in ("1", "10", "9", "latest"):
        (tmp_path / "deep" / version).mkdir(parents=True)
        (tmp_path / "deep" / version / "model.onnx").touch()
    found = find_models(str(tmp_path))
    assert {name: source.version for name, source in found.items()} == {"m": "1", "deep": "10"}
    with pytest.raises(ModelError, match="--repository"):
        find_models(str(tmp_path / "missing"))


def test_a_fingerprint_is_of_contents_alone(model):
    before = model.fingerprint()
    os.utime(model.path, (0, 0))
    (model.path.parent / "m.onnx.data").touch()  # the model says nothing of it
    assert model.fingerprint() == before
    model.path.write_bytes(b"other")
    assert model.fingerprint() != before


def external(name, location, values=(1.0,)):
    """A tensor whose data are in a file."""
    found = numpy_helper.from_array(np.array(values, np.float32), name)
    external_data_helper.set_external_data(found, location)
    found.ClearField("raw_data")
    found.data_location = TensorProto.EXTERNAL
    return found


def sparse(name, location):
    indices = numpy_helper.from_array(np.array([0], np.int64), f"{name}_at")
    return helper.make_sparse_tensor(external(name, location), indices, [3])


def value(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"])


def graph_of(*nodes, **parts):
    return helper.make_graph(list(nodes), "g", [value("x")], [value("y")], **parts)


def constant(output, **how):
    return helper.make_node("Constant", [], [output], **how)


def inner(location):
    return graph_of(constant("y", value=external("v", location)))


EVERYWHERE = {
    "an initializer": graph_of(initializer=[external("w", "encoder.layer.0.weight")]),
    "a sparse initializer": graph_of(sparse_initializer=[sparse("w", "weights [1].bin")]),
    "an attribute": graph_of(constant("c", value=external("v", "sub/folder/w"))),
    "a list of tensors": graph_of(helper.make_node("Any", [], ["y"], those=[external("v", "w")])),
    "a sparse attribute": graph_of(constant("c", sparse_value=sparse("v", "w"))),
    "a branch": graph_of(
        helper.make_node("If", ["x"], ["y"], then_branch=inner("größe"), else_branch=inner("größe"))
    ),
    "a branch of a branch": graph_of(
        helper.make_node(
            "Loop", ["x"], ["y"], body=graph_of(helper.make_node("If", [], ["y"], t=inner("w")))
        )
    ),
    "a list of graphs": graph_of(helper.make_node("Any", [], ["y"], those=[inner("w")])),
}


@pytest.mark.parametrize("where", [*EVERYWHERE, "a function", "training"])
def test_a_fingerprint_covers_every_file_that_the_model_names(tmp_path, where):
    whole = helper.make_model(EVERYWHERE.get(where, graph_of()))
    location = "w" if where not in EVERYWHERE else ""
    if where == "a function":
        nodes = [constant("y", value=external("v", "w"))]
        opset = [helper.make_opsetid("", 18)]
        whole.functions.append(helper.make_function("d", "f", ["x"], ["y"], nodes, opset))
    elif where == "training":
        whole.training_info.add().algorithm.CopyFrom(inner("w"))
    # With other weights inside, which are many, and beside files that are not the model's.
    whole.graph.initializer.append(numpy_helper.from_array(np.ones(100_000, np.float32), "inside"))
    source = ModelFile(tmp_path / "a [b].onnx", "m")
    source.path.write_bytes(whole.SerializeToString())
    (location,) = locations(source.path)
    weights = tmp_path / location
    with pytest.raises(ModelError, match=f"its weights in .*{re.escape(location)}: No such file"):
        source.fingerprint()
    weights.parent.mkdir(parents=True, exist_ok=True)
    weights.write_bytes(b"1234")
    before = source.fingerprint()
    assert source.fingerprint() == before
    weights.write_bytes(b"1235")
    assert source.fingerprint() != before


def test_weights_of_several_models_in_one_folder_are_told_apart(tmp_path):
    paths = [tmp_path / "one.onnx", tmp_path / "two.onnx"]
    for path in paths:
        onnx.save(
            helper.make_model(
                graph_of(initializer=[numpy_helper.from_array(np.ones(9, np.float32), path.stem)])
            ),
            path,
            save_as_external_data=True,
            all_tensors_to_one_file=False,
            size_threshold=0,
        )
    one, two = (ModelFile(path, "m") for path in paths)
    assert locations(one.path) == ["one"]
    before = one.fingerprint(), two.fingerprint()
    (tmp_path / "two").write_bytes(b"0" * 36)
    assert one.fingerprint() == before[0]
    assert two.fingerprint() != before[1]


def test_a_tensor_that_is_inside_after_all_names_no_file(tmp_path):
    tensor = numpy_helper.from_array(np.ones(3, np.float32), "w")
    external_data_helper.set_external_data(tensor, "nowhere")
    tensor.data_location = TensorProto.DEFAULT
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph_of(initializer=[tensor])).SerializeToString())
    assert locations(path) == []


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_what_is_no_model_names_no_files(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    assert isinstance(locations(path), list)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_a_model_that_was_cut_off_names_no_wrong_files(tmp_path_factory, size):
    whole = helper.make_model(EVERYWHERE["an initializer"]).SerializeToString()
    path = tmp_path_factory.getbasetemp() / "cut.onnx"
    path.write_bytes(whole[: size % len(whole)])
    assert set(locations(path)) <= {"encoder.layer.0.weight"}


def test_a_file_that_is_gone_is_a_plain_error(model):
    model.path.unlink()
    with pytest.raises(ModelError, match=r"m\.onnx: No such file"):
        model.fingerprint()


def test_a_file_that_rests_is_read_once_and_any_write_is_seen(tmp_path, monkeypatch):
    path = tmp_path / "w"
    path.write_bytes(b"1" * 9)
    monkeypatch.setattr(file_digest, "SETTLED_NS", -(10**18))  # as if it had rested for long
    read = []
    real = file_digest.hashlib.file_digest
    monkeypatch.setattr(
        file_digest.hashlib, "file_digest", lambda *given: read.append(given) or real(*given)
    )
    assert file_digest.digest(path) == file_digest.digest(path)
    assert len(read) == 1
    before, times = file_digest.digest(path), path.stat()
    while path.stat().st_ctime_ns == times.st_ctime_ns:  # the clock of a file system has steps
        path.write_bytes(b"2" * 9)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as rsync does
    assert file_digest.digest(path) != before


def test_a_file_written_just_now_is_read_again(tmp_path):
    """Another write within a step of the file system's clock leaves no trace but the bytes."""
    path = tmp_path / "w"
    for content in (b"1", b"2", b"1", b"3"):
        path.write_bytes(content)
        assert file_digest.digest(path) == hashlib.blake2b(content).digest()
