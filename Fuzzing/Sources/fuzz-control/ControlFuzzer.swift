import CharacterDeviceServer
import FuzzSupport
import Inspection
import Stage2Sim
import SystemPackage

/// Writes a text to the control file of a device, with one write(2) for each part between two zero bytes. A refused
/// part changes only the content of the control file. An accepted part can be read there. The node answers after each
/// part.
///
/// The length of the text selects the machine, so that the input can be a plain text.
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
      "'\(result)' is not an error of the language")
  }
  _ = finish(writer.finish())
  device.readAll()

  // A guest that has stopped answers EIO until it is booted again.
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

/// Performs all work of a write.
///
/// - Returns: False if the text is not in the language.
func finish(_ work: (any CommandWork)?) -> Bool {
  guard let work else { return true }
  while true {
    switch work.proceed() {
    case .unfinished: continue
    case .waiting: fatalError("the model has not answered at once")
    case .finished: return true
    case .failed(let error):
      check(error == .invalidArgument, "a write fails with \(error)")
      return false
    }
  }
}
