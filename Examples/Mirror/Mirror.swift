// A character device of your own in one file: it gives back what was written last, backwards.
//
//   swift run mirror /tmp/mirror                        # Ctrl-C ends it
//   echo -n hello > /tmp/mirror; cat /tmp/mirror        # olleh, in another terminal
import CharacterDeviceServer
import SystemPackage

final class Mirror: CharacterDevice {
  /// Each client that opens the device has a place of its own in the text.
  struct Reader {
    var position = 0
  }

  private var bytes: [UInt8] = []

  func open(_ request: consuming OpenRequest<Reader>) { request.accept(Reader()) }

  func read(_ request: consuming ReadRequest, _ file: OpenFile<Reader>) {
    let part = bytes.dropFirst(file.handle.position).prefix(request.count)
    if request.answer(part) { file.handle.position += part.count }
  }

  func write(_ request: consuming WriteRequest, _ new: Span<UInt8>, _ file: OpenFile<Reader>) {
    guard new[0] != UInt8(ascii: "!") else { return request.fail(.invalidArgument) }
    bytes = new.indices.reversed().map { new[$0] }
    file.handle.position = 0
    request.answer(taken: new.count)
  }
}

@main
struct Main {
  static func main() { DeviceProgram.run(Mirror(), name: "mirror") }
}
