"""The assembler: encodings, labels, directives, and errors that name the line."""

from __future__ import annotations

import pytest

from hostel.guest.assembler import AssemblyError, assemble

# Encodings as the manual's opcode tables give them.
ENCODINGS = [
    ("nop", "90"),
    ("cli", "fa"),
    ("mov al, 5", "b005"),
    ("mov ah, 0x42", "b442"),
    ("mov ax, 0x1234", "b83412"),
    ("mov eax, 0x12345678", "66b878563412"),
    ("mov ds, ax", "8ed8"),
    ("mov ax, es", "8cc0"),
    ("mov [0x1234], es", "8c063412"),
    ("mov cx, dx", "89d1"),
    ("mov eax, edx", "6689d0"),
    ("mov al, [si]", "8a04"),
    ("mov al, [bx + si + 4]", "8a4004"),
    ("mov ax, [bp]", "8b4600"),
    ("mov ax, [bp + di - 2]", "8b43fe"),
    ("mov ax, [bx + 0x200]", "8b870002"),
    ("mov eax, [0x7e00]", "668b06007e"),
    ("mov [0x7e00], dl", "8816007e"),
    ("mov byte [si], 7", "c60407"),
    ("mov word [0x500], 0x1234", "c70600053412"),
    ("mov dword [0x500], 1", "66c706000501000000"),
    ("mov al, [es:di]", "268a05"),
    ("add ax, 1", "83c001"),
    ("add ax, 0x180", "81c08001"),
    ("add al, 200", "80c0c8"),
    ("sub ebx, ecx", "6629cb"),
    ("cmp byte [0x500], 0", "803e000500"),
    ("cmp word [si], -1", "833cff"),
    ("cmp [0x500], eax", "6639060005"),
    ("xor eax, [si + 4]", "66334404"),
    ("adc dword [0x500], 0", "668316000500"),
    ("and al, 15", "80e00f"),
    ("or bx, bx", "09db"),
    ("test al, al", "84c0"),
    ("test ax, 0x100", "f7c00001"),
    ("inc si", "46"),
    ("dec byte [0x500]", "fe0e0005"),
    ("inc dword [bx]", "66ff07"),
    ("not eax", "66f7d0"),
    ("mul edx", "66f7e2"),
    ("div ebx", "66f7f3"),
    ("neg word [bx]", "f71f"),
    ("shl edx, 13", "66c1e20d"),
    ("shr ax, cl", "d3e8"),
    ("sar byte [bx], 1", "c03f01"),
    ("push eax", "6650"),
    ("push ds", "1e"),
    ("pop es", "07"),
    ("push 0", "680000"),
    ("push word [si]", "ff34"),
    ("pop dword [si]", "668f04"),
    ("movzx eax, byte [0x475]", "660fb6067504"),
    ("movzx dx, al", "0fb6d0"),
    ("movsx eax, cx", "660fbfc1"),
    ("xchg ax, bx", "87d8"),
    ("lea si, [bx + 3]", "8d7703"),
    ("int 0x13", "cd13"),
    ("in al, dx", "ec"),
    ("in ax, dx", "ed"),
    ("out dx, eax", "66ef"),
    ("out 0x64, al", "e664"),
    ("in al, 0x60", "e460"),
    ("lodsb", "ac"),
    ("stosd", "66ab"),
    ("repe cmpsw", "f3a7"),
    ("rep movsd", "f366a5"),
    ("pushad", "6660"),
    ("jmp 0:0x7c06", "ea067c0000"),
    ("jmp si", "ffe6"),
    ("call [bx]", "ff17"),
    ("jmp $", "e9fdff"),
    ("jmp short $", "ebfe"),
    ("jz $", "74fe"),
    ("jnc near $", "0f83fcff"),
    ("loop $", "e2fe"),
    ("call $ + 3", "e80000"),
]


@pytest.mark.parametrize(("source", "code"), ENCODINGS)
def test_instruction_is_encoded_as_the_manual_says(source: str, code: str) -> None:
    assert assemble(source).code.hex() == code


def test_labels_forwards_and_backwards() -> None:
    result = assemble("org 0x100\nback: jmp short on\nnop\non: jmp short back\n")
    assert result.code.hex() == "eb0190ebfb"
    assert result.symbols == {"back": 0x100, "on": 0x103}
    assert result.offset("on") == 3


def test_local_labels_belong_to_the_label_before() -> None:
    result = assemble("one:\n.x: nop\n jmp short .x\ntwo:\n.x: nop\n jmp short .x\n dw one.x\n")
    assert result.code.hex() == "90ebfd90ebfd0000"


def test_constants_and_expressions() -> None:
    source = "A equ 3\nB equ A * (4 + 1) << 1\n db B, -1, 0x10 | 1, 'x', 7 % 4, ~0 & 0xf, 0b101\n"
    assert assemble(source).code.hex() == "1eff1178030f05"


def test_constant_of_labels_that_follow() -> None:
    assert assemble("dw SIZE\nstart: nop\nnop\nend:\nSIZE equ end - start\n").code.hex() == "02009090"


def test_data_directives() -> None:
    assert assemble('db "ab", 0\ndw 0x1234\ndd 1\ndq 2\ndb ",;"').code.hex() == "61620034120100000002000000000000002c3b"


def test_times_and_align_fill_up() -> None:
    assert assemble("org 0x7c00\nnop\ntimes 4 - ($ - $$) db 0xff\nnop\nalign 8\nnop").code.hex() == "90ffffff9000000090"


def test_an_instruction_that_uses_a_label_has_one_size_in_both_passes() -> None:
    # The label is 2, which would fit a short immediate, but the first pass could not know.
    assert assemble("add ax, later\nlater:").code.hex() == "81c00400"


def test_comments_may_hold_quotes_and_text_may_hold_semicolons() -> None:
    assert assemble("db ';' ; don't stop here\n; it's fine").code == b";"


ERRORS = [
    ("nop\nfrobnicate ax", "t:2: there is no instruction 'frobnicate' here"),
    ("jmp nowhere", "t:1: no label or constant is called 'nowhere'"),
    ("a: nop\na: nop", "t:2: 'a' is defined twice"),
    ("mov al, bx", "t:1: the operands have different sizes"),
    ("mov [bx], 1", "t:1: the operand size is not clear; write byte, word or dword before the memory operand"),
    ("mov al, 300", "t:1: 0x12c does not fit in 1 byte"),
    ("mov ax, [cx]", "t:1: 16-bit code cannot address memory through 'cx'"),
    ("mov ax, [bx", "t:1: the memory operand '[bx' has no closing ']'"),
    ("jz far_away\ntimes 200 nop\nfar_away:", "too far for a short jump; use near"),
    ("times 3 - 5 db 0", "t:1: times cannot repeat -2 times; what comes before has grown too long"),
    ("times many db 0", "t:1: no label or constant is called 'many'"),
    ("db 1 / 0", "t:1: division by zero"),
    ("db (1 + 2", "t:1: a closing bracket is missing"),
    ("db 1 +", "t:1: the expression '1 +' ends too early"),
    ("db 1 2", "t:1: '2' is unexpected"),
    ("db #", "t:1: cannot read '#'"),
    ("mov ax", "t:1: 'mov' has no form with these operands"),
    ("pop cs", "t:1: 'pop' has no form with these operands"),
    ("nop\norg 5", "t:2: org must come before the first byte"),
    ("times 70000 db 0", "t:1: times cannot repeat 70000 times"),
    ("call short $", "t:1: a call is never short"),
    ("%%%", "t:1: '%%%' is not an instruction"),
]


@pytest.mark.parametrize(("source", "message"), ERRORS)
def test_error_names_the_line_and_what_is_wrong(source: str, message: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble(source, name="t")
    assert message in str(caught.value)
    assert str(caught.value).startswith("t:")
