import Testing
@testable import UserCode
