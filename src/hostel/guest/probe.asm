; A boot sector that only says that a guest runs here at all: it exists because /dev/kvm may open, create a machine, and
; then run nothing. Start QEMU with "-device isa-debug-exit,iobase=0xf4,iosize=4": it ends with status 85, 2 * 2Ah + 1.
; With "-debugcon" it writes its name there first; without the device it switches the machine off through ACPI.

DEBUG_CONSOLE   equ 0xe9
DEBUG_EXIT      equ 0xf4
PM1_CONTROL     equ 0x604
ANSWER          equ 0x2a

        org 0x7c00
start:
        cli
        jmp 0:.here
.here:
        xor ax, ax
        mov ds, ax
        mov si, name
        mov cx, name_end - name
        cld
.next:
        lodsb
        out DEBUG_CONSOLE, al
        loop .next
        mov eax, ANSWER
        mov dx, DEBUG_EXIT
        out dx, eax
        mov dx, PM1_CONTROL
        mov ax, 0x2000
        out dx, ax
.stop:
        hlt
        jmp .stop
name:
        db "HOSTEL-PROBE", 10
name_end:
        times 510 - ($ - $$) db 0
        dw 0xaa55
