; The built-in guest: a program for the boot sector of a disk, or for a bootable CD-ROM.
;
; It proves from inside a machine that its disks work. It counts its boots on the disk that it was booted from, carries
; out up to nineteen operations that the host left in its parameter sector, reports all of it on the first serial port
; in lines that start with HOSTEL-GUEST, and then powers off, restarts, or waits for the power button.
;
; It asks the BIOS for everything that differs between machines: the number of its drive comes in dl, and disk services
; (interrupt 13h, extensions 41h to 48h) work alike on virtio, IDE, SCSI and USB disks and on CD-ROMs.
;
; On the medium, in sectors of 512 bytes:
;
;       0           this file's first sector, which loads the others
;       1 ...       the rest of this file
;       parameters  what the host asks for, written by guest/image.py
;       state       the boot counter
;
; In memory:
;
;       1000h  one sector for comparison                     7C00h  this program, then parameters and state
;       2000h  the table for CRC-32                         10000h  the buffer for up to 64 sectors
;
; Assembled by guest/assembler.py.

COM1            equ 0x3f8
PM1_STATUS      equ 0x600               ; ACPI: QEMU's firmware puts the power management block here, on pc and q35
PM1_ENABLE      equ 0x602
PM1_CONTROL     equ 0x604
POWER_BUTTON    equ 0x100               ; the same bit in status and enable
SLEEP_S5        equ 0x2000              ; SLP_EN with SLP_TYP 0, which is "off" on both machines
RESET_CONTROL   equ 0xcf9

SCRATCH         equ 0x1000
CRC_TABLE       equ 0x2000
BUFFER_SEGMENT  equ 0x1000
BUFFER_SECTORS  equ 64
CD_SECTOR       equ 2048

; The parameter sector (guest/image.py writes it).
P_MAGIC         equ parameters
P_MODE          equ parameters + 10
P_OPERATIONS    equ parameters + 11
P_UNTIL         equ parameters + 12
P_LABEL         equ parameters + 16
P_FIRST         equ parameters + 48
OPERATION_SIZE  equ 24

MODE_POWEROFF   equ 0
MODE_WAIT       equ 1
MODE_REBOOT     equ 2
MODE_STAY       equ 3

OP_SUM          equ 1
OP_FILL         equ 2
OP_VERIFY       equ 3

; The state sector.
S_MAGIC         equ state
S_COUNT         equ state + 8
S_PATTERN       equ state + 16
S_PATTERN_SIZE  equ 496

        org 0x7c00

; Sector 0: find our feet, load the rest. Bytes 440 to 509 stay free for a partition table.

start:
        jmp short first
        nop
        db "HOSTEL"
medium: db 0                            ; 0: a disk, load the rest; 1: a CD-ROM, the BIOS has loaded all of us
first:
        cli
        jmp 0:.here                     ; some BIOSes come here as 07C0:0000
.here:
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, start
        sti
        cld
        mov [drive], dl
        mov [op_drive], dl
        call serial_setup
        cmp byte [medium], 0
        jne .loaded

        mov word [sector_count], (image_end - rest) / 512
        mov word [packet_offset], rest
        mov word [packet_segment], 0
        mov dword [packet_lba], 1
        mov dword [packet_lba + 4], 0
        mov ah, 0x42
        call disk
        jnc .loaded
        call say
        db 13, 10, "HOSTEL-GUEST error=load", 13, 10, 0
.stop:
        hlt
        jmp .stop
.loaded:
        jmp main

; Move sector_count sectors as the packet below says; ah = 42h reads, 43h writes. Three attempts. Carry and ah on failure.
disk:
        mov byte [attempts], 3
.again:
        push ax
        mov dl, [op_drive]
        mov si, packet
        mov ax, [sector_count]
        mov [packet_count], ax
        pop ax
        push ax
        xor al, al                      ; for a write: do not ask the BIOS to verify
        int 0x13
        jnc .good
        dec byte [attempts]
        jz .bad
        pop ax
        jmp .again
.good:
        pop dx                          ; ah stays the status of the BIOS
        clc
        ret
.bad:
        pop dx
        stc
        ret

serial_setup:                           ; 115200 baud, 8 bits, no parity, queues on
        mov si, .values
.next:
        lodsw                           ; al = register, ah = value
        cmp al, 0xff
        je .done
        movzx dx, al
        add dx, COM1
        mov al, ah
        out dx, al
        jmp .next
.done:
        ret
.values:
        db 1, 0,  3, 0x80,  0, 1,  1, 0,  3, 3,  2, 7,  4, 3,  0xff, 0xff

; Print the text that follows the call, up to a zero; execution goes on behind it.
say:
        pop si
        call puts
        jmp si

puts:                                   ; print the text at si; leaves si behind its zero
        lodsb
        test al, al
        jz .done
        call putc
        jmp puts
.done:
        ret

putc:                                   ; print al on the serial port, or on the screen when that is chosen
        push dx
        push bx
        push ax
        cmp byte [on_screen], 0
        jne .screen
        mov dx, COM1 + 5
.wait:
        in al, dx
        test al, 0x20                   ; the transmitter is empty; a port that is not there reads as all ones
        jz .wait
        mov dx, COM1
        pop ax
        out dx, al
        push ax
        jmp .done
.screen:
        mov ah, 0x0e
        mov bx, 7
        int 0x10
.done:
        pop ax
        pop bx
        pop dx
        ret

packet:                                 ; the disk address packet of int 13h, 42h and 43h
        db 16, 0
packet_count:                           ; the BIOS changes it to what it did
        dw 0
packet_offset:
        dw 0
packet_segment:
        dw 0
packet_lba:
        dq 0

sector_count:   dw 0
drive:          db 0
op_drive:       db 0
attempts:       db 0
on_screen:      db 0

        times 440 - ($ - $$) db 0
        times 510 - ($ - $$) db 0
        dw 0xaa55

; Sector 1 on: count the boot, say who we are, carry out the operations, obey the mode.

rest:
main:
        mov dword [failures], 0
        call newline                    ; whatever the firmware left on the line
        mov si, P_MAGIC
        mov di, parameters_magic
        mov cx, 4
        repe cmpsw
        je .known
        call say
        db "HOSTEL-GUEST error=parameters", 13, 10, 0
        jmp stay
.known:
        call drive_size
        cmp byte [medium], 0
        jne .cdrom
        call count_boot
        jmp .report
.cdrom:
        call read_cdrom
.report:
        call identity
        call greet_screen
        call list_disks
        call operations
        ; The power button must work before the host reads the last line and presses it.
        cmp byte [P_MODE], MODE_WAIT
        jne .finish
        call button_setup
.finish:
        call say
        db "HOSTEL-GUEST done failures=", 0
        mov eax, [failures]
        call put_number
        call say
        db " mode=", 0
        mov al, [P_MODE]
        call put_mode
        call newline
        cmp byte [P_MODE], MODE_POWEROFF
        je near power_off
        cmp byte [P_MODE], MODE_REBOOT
        je near restart
        jmp stay

; The boot counter.

count_boot:
        mov si, S_MAGIC
        mov di, state_magic
        mov cx, 4
        repe cmpsw
        mov byte [write_result], 'm'    ; the state sector has lost its magic
        je .known
        inc dword [failures]
        ret
.known:
        inc dword [S_COUNT]
        mov eax, [S_COUNT]
        mov [seed], eax
        mov dword [lba], (state - start) / 512
        mov dword [lba + 4], 0
        xor ax, ax
        mov es, ax
        mov di, S_PATTERN
        mov cx, S_PATTERN_SIZE / 4
        call pattern
        mov word [packet_segment], 0
        mov word [packet_offset], state
        mov ah, 0x43
        call state_sector
        mov byte [write_result], 'w'
        jc .bad
        mov word [packet_offset], SCRATCH
        mov ah, 0x42
        call state_sector
        mov byte [write_result], 'r'
        jc .bad
        mov si, state
        mov di, SCRATCH
        mov cx, 256
        repe cmpsw
        mov byte [write_result], 'd'
        jne .bad
        mov byte [write_result], 'k'
        ret
.bad:
        inc dword [failures]
        ret

state_sector:
        mov word [sector_count], 1
        mov dword [packet_lba], (state - start) / 512
        mov dword [packet_lba + 4], 0
        jmp disk

read_cdrom:                             ; the volume descriptor of ISO 9660 is in sector 16 and has a name of its own
        mov word [sector_count], 1
        mov word [packet_segment], 0
        mov word [packet_offset], SCRATCH
        mov dword [packet_lba], 16
        mov dword [packet_lba + 4], 0
        mov ah, 0x42
        call disk
        mov byte [write_result], 'r'
        jc .bad
        mov byte [write_result], 'd'
        cmp dword [SCRATCH + 1], "CD00"
        jne .bad
        mov byte [write_result], 'n'
        mov eax, [SCRATCH + 80]         ; the BIOS does not know how big it is, its volume descriptor does
        mov [sectors], eax
        mov dword [sectors + 4], 0
        ret
.bad:
        inc dword [failures]
        ret

drive_size:                             ; of op_drive, into sectors and bytes_per_sector; carry when there is none
        mov word [drive_parameters], 26
        mov ah, 0x48
        mov dl, [op_drive]
        mov si, drive_parameters
        int 0x13
        ret

; The report.

identity:
        call say
        db "HOSTEL-GUEST label=", 0
        mov byte [parameters + 47], 0   ; the label ends here at the latest
        mov si, P_LABEL
        call puts
        call say
        db " medium=", 0
        cmp byte [medium], 0
        je .disk
        call say
        db "cdrom", 0
        jmp .drive
.disk:
        call say
        db "disk", 0
.drive:
        call put_drive_and_size
        cmp byte [medium], 0
        jne .result
        call say
        db " boot=", 0
        mov eax, [S_COUNT]
        call put_number
.result:
        call say
        db " write=", 0
        mov al, [write_result]
        call put_result
        jmp newline

put_drive_and_size:
        call say
        db " drive=0x", 0
        movzx eax, byte [op_drive]
        mov cx, 2
        call put_hex
        call say
        db " sectors=", 0
        mov eax, [sectors]
        mov edx, [sectors + 4]
        call put_long
        call say
        db " sector-size=", 0
        movzx eax, word [bytes_per_sector]
        jmp put_number

put_result:                             ; al = the letter
        mov si, .words
.next:
        cmp al, [si]
        je .found
        cmp byte [si], 0
        je .found
.skip:
        inc si
        cmp byte [si], 0
        jne .skip
        inc si
        jmp .next
.found:
        inc si
        jmp puts
.words:
        db "kok", 0, "nnone", 0, "mno-state", 0, "wwrite-error", 0, "rread-error", 0, "ddiffers", 0, 0, "?", 0

put_mode:                               ; al = the mode
        mov si, .words
        cmp al, 3
        ja near puts                         ; the first word: unknown
.next:
        inc si
        cmp byte [si - 1], 0
        jne .next
        dec al
        jns .next
        jmp puts
.words:
        db "unknown", 0, "poweroff", 0, "wait", 0, "reboot", 0, "stay", 0

greet_screen:                           ; for whoever looks at the machine's display
        mov byte [on_screen], 1
        call say
        db 13, 10, "This is ", 0
        mov si, P_LABEL
        call puts
        call say
        db ", the guest built into Hostel.", 13, 10, 0
        cmp byte [medium], 0
        jne .done
        call say
        db "It has started ", 0
        mov eax, [S_COUNT]
        call put_number
        call say
        db " time(s) from this disk.", 13, 10, 0
.done:
        mov byte [on_screen], 0
        ret

list_disks:                             ; one line for each hard disk that the BIOS knows
        movzx cx, byte [0x475]          ; BIOS data area: how many there are
        jcxz .done
        mov byte [op_drive], 0x80
.next:
        push cx
        call drive_size
        jc .skip
        call say
        db "HOSTEL-GUEST disk", 0
        call put_drive_and_size
        call newline
.skip:
        inc byte [op_drive]
        pop cx
        loop .next
.done:
        ret

; The operations of the parameter sector.

operations:
        movzx cx, byte [P_OPERATIONS]
        jcxz .done
        cmp cx, 19
        ja .done
        mov bp, P_FIRST
.next:
        push cx
        push bp
        call operation
        pop bp
        pop cx
        add bp, OPERATION_SIZE
        loop .next
.done:
        ret

operation:                              ; at bp: code, drive, -, -, seed (4), first sector (8), sectors (4)
        mov al, [bp]
        mov [op_code], al
        mov al, [bp + 1]
        test al, al
        jnz .drive
        mov al, [drive]
.drive:
        mov [op_drive], al
        mov eax, [bp + 4]
        mov [seed], eax
        mov eax, [bp + 8]
        mov [lba], eax
        mov eax, [bp + 12]
        mov [lba + 4], eax
        mov eax, [bp + 16]
        mov [left], eax
        mov dword [crc], 0xffffffff
        mov byte [op_result], 'k'
        call announce
        cmp byte [op_code], OP_SUM
        jne .chunk
        call crc_setup
.chunk:
        cmp dword [left], 0
        je near .finish
        mov eax, [left]
        cmp eax, BUFFER_SECTORS
        jbe .fits
        mov eax, BUFFER_SECTORS
.fits:
        mov [sector_count], ax
        mov [chunk], ax
        mov word [packet_offset], 0
        mov word [packet_segment], BUFFER_SEGMENT
        mov eax, [lba]
        mov [packet_lba], eax
        mov eax, [lba + 4]
        mov [packet_lba + 4], eax
        cmp byte [op_code], OP_FILL
        je .fill
        mov ah, 0x42
        call disk
        mov al, 'r'
        jc .failed
        call examine
        mov al, 'd'
        jc .failed
        jmp .advance
.fill:
        call prepare
        mov ah, 0x43
        call disk
        jnc .advance
        mov eax, [packet_lba]           ; back to the first sector of the transfer
        mov [lba], eax
        mov eax, [packet_lba + 4]
        mov [lba + 4], eax
        mov al, 'w'
        jmp .failed
.advance:
        movzx eax, word [chunk]
        sub [left], eax
        jmp .chunk
.failed:
        mov [op_result], al
        inc dword [failures]
.finish:
        jmp outcome

announce:
        call say
        db "HOSTEL-GUEST ", 0
        mov al, [op_code]
        mov si, .sum
        cmp al, OP_SUM
        je .known
        mov si, .fill
        cmp al, OP_FILL
        je .known
        mov si, .verify
.known:
        call puts
        call say
        db " drive=0x", 0
        movzx eax, byte [op_drive]
        mov cx, 2
        call put_hex
        call say
        db " lba=", 0
        mov eax, [lba]
        mov edx, [lba + 4]
        call put_long
        call say
        db " sectors=", 0
        mov eax, [left]
        jmp put_number
.sum:   db "sum", 0
.fill:  db "fill", 0
.verify: db "verify", 0

outcome:
        cmp byte [op_code], OP_SUM
        jne .result
        call say
        db " crc32=", 0
        mov eax, [crc]
        not eax
        mov cx, 8
        call put_hex
.result:
        call say
        db " result=", 0
        mov al, [op_result]
        call put_result
        cmp byte [op_result], 'k'
        je near newline
        call say
        db " at=", 0                    ; the first sector that differs, or the first of the failed transfer
        mov eax, [lba]
        mov edx, [lba + 4]
        call put_long
        jmp newline

prepare:                                ; fill the buffer with the pattern of each of its sectors; lba moves on
        mov ax, BUFFER_SEGMENT
        mov es, ax
        xor di, di
        mov cx, [chunk]
.next:
        push cx
        mov cx, 128
        call pattern
        call next_sector
        pop cx
        loop .next
        jmp segments

examine:                                ; sum or compare what was read; lba moves on; carry at a sector that differs
        mov bx, 0                       ; where the sector is in the buffer
        mov cx, [chunk]
.next:
        push cx
        cmp byte [op_code], OP_SUM
        je .sum
        mov di, SCRATCH
        mov cx, 128
        push bx
        call pattern
        pop bx
        mov ax, BUFFER_SEGMENT
        mov es, ax
        mov si, SCRATCH
        mov di, bx
        mov cx, 128
        repe cmpsd
        call segments
        je .same
        pop cx
        stc
        ret
.sum:
        call crc_sector
.same:
        add bx, 512
        call next_sector
        pop cx
        loop .next
        clc
        ret

segments:                               ; es back to 0, flags untouched
        push 0
        pop es
        ret

next_sector:
        add dword [lba], 1
        adc dword [lba + 4], 0
        ret

; Write cx dwords of the pattern of the sector lba for the seed at es:di: Marsaglia's xorshift32, begun anew in each
; sector, so that every sector can be checked alone. Leaves di behind it.
pattern:
        mov eax, [lba]
        mov edx, 0x9e3779b1
        mul edx
        add eax, [lba + 4]
        xor eax, [seed]
        jnz .next
        inc eax                         ; xorshift stays at zero for ever
.next:
        mov edx, eax
        shl edx, 13
        xor eax, edx
        mov edx, eax
        shr edx, 17
        xor eax, edx
        mov edx, eax
        shl edx, 5
        xor eax, edx
        stosd
        loop .next
        ret

; CRC-32 as zlib's: reflected, polynomial EDB88320h, begun with all ones and inverted at the end.
crc_setup:
        xor bx, bx
        mov di, CRC_TABLE
.next:
        movzx eax, bx
        mov cx, 8
.bit:
        shr eax, 1
        jnc .even
        xor eax, 0xedb88320
.even:
        loop .bit
        stosd
        inc bx
        cmp bx, 256
        jb .next
        ret

crc_sector:                             ; go on with the 512 bytes at BUFFER_SEGMENT:bx
        push bx
        push ds
        mov eax, [crc]
        mov cx, 512
        mov si, bx
        mov dx, BUFFER_SEGMENT
        mov ds, dx
.next:
        movzx bx, al
        xor bl, [si]
        inc si
        shl bx, 2
        shr eax, 8
        xor eax, [es:bx + CRC_TABLE]
        loop .next
        pop ds
        mov [crc], eax
        pop bx
        ret

; Numbers.

newline:
        call say
        db 13, 10, 0
        ret

put_hex:                                ; the low cx digits of eax
        push eax
        mov bx, cx
        dec bx
        shl bx, 2                       ; where the highest of them starts
        push cx
        mov cl, bl
        shr eax, cl
        pop cx
        and al, 15
        cmp al, 10
        jb .digit
        add al, 'a' - '0' - 10
.digit:
        add al, '0'
        call putc
        pop eax
        loop put_hex
        ret

put_number:                             ; eax in decimal
        xor edx, edx
put_long:                               ; edx:eax in decimal
        mov ebx, 10
        xor cx, cx
.divide:
        push eax                        ; divide the high half first, then its remainder with the low half
        mov eax, edx
        xor edx, edx
        div ebx
        mov edi, eax
        pop eax
        div ebx
        push dx                         ; a digit
        inc cx
        mov edx, edi
        mov esi, eax
        or esi, edx
        jnz .divide
.print:
        pop ax
        add al, '0'
        call putc
        loop .print
        ret

; How it ends.

power_off:
        call uart_drain
        mov dx, PM1_CONTROL
        mov ax, SLEEP_S5
        out dx, ax
        mov cx, 54                      ; QEMU may let us run on for a moment: three seconds of the timer, 18 a second
.wait:
        hlt
        loop .wait
        ; We are still here: this machine has no ACPI.
        call say
        db "HOSTEL-GUEST error=poweroff", 13, 10, 0
        jmp stay

restart:
        mov eax, [P_UNTIL]
        test eax, eax
        jz .now                         ; no limit
        cmp [S_COUNT], eax
        jae power_off
.now:
        call uart_drain
        mov dx, RESET_CONTROL
        mov al, 2
        out dx, al
        mov al, 6
        out dx, al
        mov al, 0xfe                    ; and by the keyboard controller, where there is no such register
        out 0x64, al
.wait:
        hlt
        jmp .wait

uart_drain:                             ; until the last byte has left the port
        mov dx, COM1 + 5
.wait:
        in al, dx
        test al, 0x40
        jz .wait
        ret

button_setup:
        mov dx, PM1_STATUS
        mov ax, POWER_BUTTON            ; writing a one clears an old press
        out dx, ax
        mov dx, PM1_ENABLE
        mov ax, POWER_BUTTON
        out dx, ax
        ret

; Echo what comes on the serial port; in mode "wait" a press of the power button switches the machine off. The BIOS's
; timer wakes us 18 times a second.
stay:
        sti
        hlt
        cmp byte [P_MODE], MODE_WAIT
        jne .serial
        mov dx, PM1_STATUS
        in ax, dx
        cmp ax, 0xffff                  ; no ACPI, nothing answers
        je .serial
        test ax, POWER_BUTTON
        jz .serial
        call say
        db "HOSTEL-GUEST power-button", 13, 10, 0
        jmp power_off
.serial:
        mov dx, COM1 + 5
        in al, dx
        cmp al, 0xff                    ; no such port
        je stay
        test al, 1
        jz stay
        mov dx, COM1
        in al, dx
        call putc
        cmp al, 13
        jne .serial
        mov al, 10
        call putc
        jmp .serial

; What it remembers.

parameters_magic:
        db "HOSTELPS"
state_magic:
        db "HOSTELST"
write_result:   db 0
op_code:        db 0
op_result:      db 0
chunk:          dw 0
seed:           dd 0
lba:            dq 0
left:           dd 0
crc:            dd 0
failures:       dd 0

drive_parameters:                       ; the answer to int 13h, 48h: Enhanced Disk Drive specification, section 4
        dw 26
        times 14 db 0
sectors:
        dq 0
bytes_per_sector:
        dw 0

        align 512
parameters:
        times 512 db 0
state:
        times 512 db 0
image_end:
