import Scenarios
import Stage2Sim

// The addresses and the steps of most scenarios.

/// The page whose entry holds the byte: the first page of RAM. Addresses are plain numbers here, since the generator only writes them.
let target = MachineDescription.memoryBase.rawValue
let page: UInt64 = 0x1000
let block: UInt64 = 0x20_0000
/// The next page of the target's block.
let neighbour = target + page
let nextBlock = target + block
/// An address between the hook's registers and RAM, at which no device is.
let unclaimed: UInt64 = 0x0c00_1000

let hideRegister: UInt64 = 0x0b00_0000
let seekRegister: UInt64 = 0x0b00_0001

/// The instruction by which the guest leaves its code; a page that begins with it can be fetched from.
let leave: UInt64 = 0xf900_013f

/// The address of a page of RAM, by the number of the page.
func pageAddress(_ number: UInt64) -> UInt64 { target + number * page }

// --- The guest

/// A step with one instruction. The A in the form stands for the address.
func guest(_ form: String, at address: UInt64, x0: UInt64? = nil) -> String {
  "guest " + form.replacing("A", with: hex(address, digits: 8))
    + (x0.map { " x0=\(hex($0))" } ?? "")
}

/// A step that hides a byte. The hook takes the lowest eight bits of the register.
func hide(_ byte: UInt64) -> String { hide(literal: hex(byte, digits: 2)) }

/// A step that hides a byte, with the number in the given form.
func hide(literal byte: String) -> String {
  "\(guest("strb w0,[A]", at: hideRegister)) x0=\(byte)"
}

let seek = guest("ldrb w0,[A]", at: seekRegister)

func load(_ address: UInt64) -> String { guest("ldr w0,[A]", at: address) }

/// Steps that load from pages of RAM. The recording shows the frames of the pages.
func load(pages numbers: UInt64...) -> [String] { numbers.map { load(pageAddress($0)) } }

/// A step that stores the instruction ``leave``, so that the guest can also fetch it.
func store(_ address: UInt64) -> String { store(leave, to: address) }

func store(_ value: UInt64, to address: UInt64) -> String {
  guest("str w0,[A]", at: address, x0: value)
}

func fetch(_ address: UInt64) -> String { "guest fetch \(hex(address, digits: 8))" }

// --- The host

/// A step of the host: a call, and the addresses, sizes and values that it takes.
func host(_ call: String, _ numbers: UInt64...) -> String {
  (["host", call] + numbers.map { hex($0) }).joined(separator: " ")
}

/// A step of the host on `count` pages of RAM from the page with the number `first` on.
func host(_ call: String, pages count: UInt64, from first: UInt64 = 0) -> String {
  host(call, pageAddress(first), count * page)
}
