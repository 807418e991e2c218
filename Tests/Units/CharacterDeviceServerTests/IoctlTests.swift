import Testing

@testable import CharacterDeviceServer

/// The numbers were made by a C compiler with the macros of linux/ioctl.h.
@Suite struct IoctlTests {
  @Test func commandsAreEncodedAsInC() {
    // _IOR('w', 1, uint32_t), _IOW('w', 2, uint32_t), _IOWR('w', 3, uint32_t), _IO('w', 4)
    let commands: [(IoctlCommand, UInt32)] = [
      (IoctlCommand(.fromDevice, type: "w", number: 1, size: 4), 0x8004_7701),
      (IoctlCommand(.toDevice, type: "w", number: 2, size: 4), 0x4004_7702),
      (IoctlCommand([.toDevice, .fromDevice], type: "w", number: 3, size: 4), 0xc004_7703),
      (IoctlCommand([], type: "w", number: 4), 0x7704),
    ]
    for (command, number) in commands { #expect(command.rawValue == number) }
    // TCGETS2 is _IOR('T', 0x2a, struct termios2).
    let terminal = IoctlCommand(rawValue: 0x802c_542a)
    #expect(terminal.direction == .fromDevice)
    #expect(terminal.size == 44 && terminal.type == 0x54 && terminal.number == 0x2a)
  }

  @Test func areasComeFromTheEncoding() {
    let both = IoctlCommand([.toDevice, .fromDevice], type: "w", number: 1, size: 16)
    let area = [MemoryArea(address: 4096, count: 16)]
    #expect(IoctlAreas(encodedIn: both, at: 4096) == IoctlAreas(input: area, output: area))
    let none = IoctlAreas(encodedIn: IoctlCommand([], type: "w", number: 1, size: 16), at: 4096)
    #expect(none == IoctlAreas() && none.isEmpty)
    #expect(IoctlAreas(input: [MemoryArea(address: 1, count: 0)]).isEmpty)
  }

  @Test func integersAreReadFromBytes() {
    let bytes: [UInt8] = [1, 2, 3, 4, 5]
    #expect(UInt32(in: bytes.span)?.littleEndian == 0x0403_0201)
    #expect(UInt32(in: bytes.span, at: 1)?.littleEndian == 0x0504_0302)
    #expect(UInt32(in: bytes.span, at: 2) == nil && UInt32(in: bytes.span, at: -1) == nil)
    #expect(UInt8(in: bytes.span, at: 4) == 5 && UInt8(in: bytes.span, at: 5) == nil)
    #expect(UInt16(0x0102).bytesInMemory.count == 2)
    #expect(UInt16(in: UInt16(0x0102).bytesInMemory.span) == 0x0102)
  }
}
