"""Tables of clicks are read as spreadsheets and napari write them."""

from __future__ import annotations

import pytest

from napari_cfrseg.clicks import Click
from napari_cfrseg.errors import SessionError
from napari_cfrseg.io.click_tables import TableClick, clicks_csv, read_clicks


def read(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "clicks.csv"
    path.write_bytes(text.encode(encoding))
    return [(c.owner, c.name, c.plane, c.click.yx, c.click.is_positive)
            for c in read_clicks(path)]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "y,x,object,sign\n1.5,2.5,1,-\n",
        "y;x;object;sign\r\n1,5;2,5;1;-\r\n",
        "y\tx\tobject\tsign\n1,5\t2,5\t01\t−\n",
        "y;x;object;sign\n1.5;2.5;1,0;false\n",
        "\r\nY , X ,Object,Polarity\r1.5,2.5,1.0,negative\r",
        'object,"y",sign,"x",note\n1,1.5,-,2.5,"a\nb"\n\n,,,\n',
        "sep=;\r\ny;x;object;sign\r\n1,5;2,5;1;-1,0\r\n",
        "# remarks, of any kind\n , ,\ny,x,object,sign\n1.5,2.5,1,0.0\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_separators_and_encodings(tmp_path, text, encoding):
    if "−" in text and encoding == "cp1252":
        text = text.replace("−", "-")
    assert read(tmp_path, text, encoding) == [("1", "", (), (1.5, 2.5), False)]


def test_a_name_in_windows_letters(tmp_path):
    found = read(tmp_path, "y,x,name\n1,2,Größe\n", "cp1252")
    assert found[0][1] == "Größe"


def test_napari_s_own_points(tmp_path):
    text = "index,axis-0,axis-1,axis-2\n0.0,2.6,1.5,2.5\n1.0,0.4,3.0,4.0\n"
    assert read(tmp_path, text) == [
        ("line 2", "", (3,), (1.5, 2.5), True),
        ("line 3", "", (0,), (3.0, 4.0), True),
    ]
    assert read(tmp_path, "index,axis-0,axis-1\n0,1.5,2.5\n")[0][2:4] == (
        (),
        (1.5, 2.5),
    )


@pytest.mark.parametrize("head", ["axis_0,axis_1,y,x", "t,z,y,x", "axis_1,axis_0,y,x"])
def test_planes_may_be_floats(tmp_path, head):
    places = "2,1.0" if head.startswith("axis_1") else "1.0,2"
    assert read(tmp_path, f"{head}\n{places},5,6\n")[0][2] == (1, 2)


def test_equal_numbers_are_one_object_and_other_texts_one_each(tmp_path):
    text = "y,x,object\n" + "".join(
        f"1,2,{owner}\n"
        for owner in ("01", "1", "1.0", "+1", "1.5", "a", "A", "", "0", "NaN")
    )
    found = [row[:2] for row in read(tmp_path, text)]
    assert [name for _, name in found] == [*[""] * 5, "a", "A", "", "", ""]
    owners = [owner for owner, _ in found]
    assert owners == ["1", "1", "1", "1", "1.5", "a", "A", "line 9", "0", "line 11"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected the columns y and x"),
        ("a,b\n1,2\n", "found a,b"),
        ("axis-0\n1\n", "expected the columns"),
        ("y,x\n1,2\n1\n", "line 3"),
        ("y,x\n1,here\n", "line 2"),
        ("y,x\nnan,1\n", "no finite number"),
        ("y,x,sign\n1,2,maybe\n", "sign 'maybe': expected + or -"),
        ('y,x,name\n1,2,"a quote\n3,4,b\n', "line 2"),
        ("y,x,name\n1,2," + "n" * 140_000 + "\n", "line 2"),
        ("z,y,x\n1e999,1,2\n", "no finite number"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, text, reason):
    with pytest.raises(SessionError) as raised:
        read(tmp_path, text)
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_written_is_read(tmp_path):
    rows = [
        (7, TableClick("3", 'a "b",\nc', (2, 0), Click((1.25, 1 / 3), True))),
        (8, TableClick("1", "", (0, 5), Click((-0.5, 2.0), False))),
    ]
    found = read(tmp_path, clicks_csv(rows, 2))
    assert found == [
        ("3", 'a "b",\nc', (2, 0), (1.25, 1 / 3), True),
        ("1", "", (0, 5), (-0.5, 2.0), False),
    ]


IMAGEJ = " ,Area,Mean,X,Y,Ch,Slice,Frame,Counter\n"


def imagej(tmp_path, rows, axes=("z",), size=(0.1, 0.2)):
    path = tmp_path / "Results.csv"
    path.write_text(
        IMAGEJ + "".join(f"{i + 1},0,9,{row}\n" for i, row in enumerate(rows))
    )
    return [(c.plane, c.click.yx) for c in read_clicks(path, axes, size)]


def test_imagej_s_results_are_read_in_pixels_or_units_as_they_fit(tmp_path):
    units = ["4.100,3.250,1,3,1,0", "1.000,0.600,1,1,1,0"]
    wanted = [((2,), (32, 20)), ((0,), (5.5, 4.5))]
    found = imagej(tmp_path, units)
    for (plane, yx), (there, place) in zip(found, wanted, strict=True):
        assert plane == there
        assert yx == pytest.approx(place)
    pixels = ["20.5,32.5,1,3,1,0", "5,6,1,1,1,0"]
    for size in ((0.23, 0.23), (1.0, 1.0), None):
        assert imagej(tmp_path, pixels, size=size) == [
            ((2,), (32, 20)),
            ((0,), (5.5, 4.5)),
        ]
    both = [f"{row},1,2,5,0" for row in ("20.5,32.5", "5,6")]
    planes = [(("t", "z"), (4, 1)), (("z", "t"), (1, 4)), (("t",), (4,)), ((), ()),
              (("q",), (1,)), (None, (4, 1))]  # fmt: skip
    for axes, plane in planes:
        assert imagej(tmp_path, both, axes, None)[0][0] == plane


@pytest.mark.parametrize(
    ("columns", "axes", "plane"),
    [
        ("Ch,Slice", ("c", "z"), (1, 3)),
        ("Ch,Slice", ("z", "c"), (3, 1)),
        ("Ch,Slice", ("z",), (3,)),
        ("Ch,Slice", None, (3,)),
        ("Ch,Slice", (), ()),
        ("Ch", ("c",), (1,)),
        ("Ch", ("z",), (1,)),
        ("Slice", ("c",), (1,)),
        ("Ch,Slice", ("t", "z"), "axis t"),
        ("Slice", ("c", "z"), "axis c"),
        ("Mean", ("z",), "axis z"),
    ],
)
def test_the_channel_of_an_imagej_table_counts_where_it_is_a_plane(
    tmp_path, columns, axes, plane
):
    path = tmp_path / "Results.csv"
    path.write_text(f" ,Area,X,Y,{columns}\n1,0,20.5,32.5,2,4\n")
    if isinstance(plane, str):
        with pytest.raises(SessionError, match=f"{plane} .*Frame .*Slice .*Ch "):
            read_clicks(path, axes)
        return
    assert read_clicks(path, axes)[0].plane == plane


@pytest.mark.parametrize(
    "rows", [["12.5,3.5,1,1,1,0"], ["1.237,3.211,1,1,1,0"], ["2,3.21,1,1,1,0"]]
)
def test_units_of_imagej_that_cannot_be_told_are_refused(tmp_path, rows):
    with pytest.raises(SessionError, match=r"may be pixels or .*Remove Scale"):
        imagej(tmp_path, rows, size=(0.5, 0.5))


def test_capitals_alone_are_no_table_of_imagej(tmp_path):
    assert read(tmp_path, "X,Y\n2.5,1.5\n")[0][3] == (1.5, 2.5)


def test_capitals_beside_columns_of_ours_are_no_table_of_imagej(tmp_path):
    assert read(tmp_path, "X,Y,object,Mean\n10,20,2,3\n")[0][3] == (20, 10)
    assert read(tmp_path, "z,X,Y,Slice\n4,10,20,3\n")[0][2:4] == ((4,), (20, 10))


def test_a_table_of_imagej_without_rows_or_with_huge_numbers(tmp_path):
    assert imagej(tmp_path, []) == []
    with pytest.raises(SessionError, match="may be pixels"):
        imagej(tmp_path, ["1e308,20.5,1,1,1,0"], size=(0.001, 0.001))


def test_a_table_of_imagej_on_rolled_axes_is_refused(tmp_path):
    with pytest.raises(SessionError, match="roll the axes back"):
        imagej(tmp_path, ["20.5,15.5,1,4,1,0"], axes=("y",), size=None)
