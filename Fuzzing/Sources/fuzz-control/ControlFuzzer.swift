import CharacterDeviceServer
import FuzzSupport
import Inspection
import Stage2Sim
import SystemPackage

/// Writes a text to a device's control file, one write(2) for each part between two zero bytes. What is refused changes
/// nothing but what the file says of it; what is taken can be read there; and whatever was done, the node answers.
///
/// The text's length decides over the machine, so that a text may be one.
@_cdecl("LLVMFuzzerTestOneInput")
func test(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  let backing = Backing.allCases[bytes.count % Backing.allCases.count]
  let device = Device(.init(backing: backing, memorySize: 64 << 20))
  let parts = bytes.split(separator: 0, omittingEmptySubsequences: false).map(Array.init)
  let writer = device.makeControlWriter()
  for part in parts {
    let before = device.state
    let isDone = write(part, to: writer)
    let result = device.read("control")
    guard !isDone else { continue }
    check(device.state == before, "'\(result)' has changed the machine")
    check(
      result.wholeMatch(of: /[0-9]+:[0-9]+: expected [ -~]*\n/) != nil,
      "'\(result)' is no error of the language")
  }
  _ = finish(writer.finish())
  device.readAll()

  // A guest that does not run any more answers EIO, until it is booted anew.
  _ = try? device.seek()
  device.reset()
  do {
    check(try device.seek() == 0, "a byte has survived the reset")
  } catch {
    fatalError("the node fails after a reset: \(error)")
  }
  return 0
}

func write(_ bytes: [UInt8], to writer: any CommandWriter) -> Bool {
  do throws(Errno) {
    return finish(try writer.write(bytes.span))
  } catch {
    fatalError("a write fails with \(error)")
  }
}

/// Does all that a write has asked for.
///
/// - Returns: False where it is not in the language.
func finish(_ work: (any CommandWork)?) -> Bool {
  guard let work else { return true }
  while true {
    switch work.proceed() {
    case .unfinished: continue
    case .waiting: fatalError("the model answers at once")
    case .finished: return true
    case .failed(let error):
      check(error == .invalidArgument, "a write fails with \(error)")
      return false
    }
  }
}
